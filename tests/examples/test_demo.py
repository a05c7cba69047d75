"""The features of `make demo`: one more order changes them, and it can be run again over whatever is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_one_more_order_changes_the_features_also_in_a_second_run(tmp_path: Path) -> None:
    output = tmp_path / "features"
    (output / "rows").mkdir(parents=True)
    (output / "rows" / "data.mdb").write_bytes(b"of a run that was killed")
    command = [sys.executable, "-m", "examples.events.demo", "--output", str(output)]
    for _ in range(2):
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        lines = [line.split() for line in (run.stdout + run.stderr).splitlines() if "->" in line]
        values = {name: (before, after, quality) for name, before, _, after, quality, *_ in lines}
        before, after, quality = values["lines_7d"]
        assert (int(after) - int(before), quality) == (1, "fresh")
        before, after, _ = values["sales_cents_sum_7d"]
        assert int(after) - int(before) == 1_299
        assert values["store_id_last_7d"][1] == "store-demo"
