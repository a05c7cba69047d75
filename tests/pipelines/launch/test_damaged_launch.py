"""Files of a launch's folder, finished or stopped half-way, damaged: every command gives the right result, or names the
file. Each command meets each file, and each file each damage."""

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from support.factories import SECRET
from support.launching import Place, any_place

from runners.cli.main import main
from schemas.problems import JobError
from stores.launches import launch_folder
from stores.launches.launch_folder import write_parquet
from stores.ledger.open import open_ledger


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x11
    path.write_bytes(data)


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "delete": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "halve": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "flip": flip,
    "replace by a folder": replace_by_folder,
}
IDLE = (".lock", "report.html")
"""Files that nothing reads."""


@dataclass
class State:
    """A launch, a copy of its folder as it was, and the events of the whole launch."""

    place: Place
    kept: Path
    events: dict[str, Any]

    def restore(self) -> None:
        shutil.rmtree(self.place.root)
        shutil.copytree(self.kept, self.place.root)


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, State]]:
    """A finished launch and one that stopped at its second batch. The customers are a CSV file, so that there is a
    snapshot; there is the ledger of a delivery."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAMPAIGNS_CODE_SECRET", SECRET)
        root = tmp_path_factory.mktemp("states")
        place = any_place(root / "place", customers=120)
        customers = pq.read_table(place.root / "customers.parquet")
        pacsv.write_csv(customers, place.root / "customers.csv")
        with open(place.root / "customers.csv", "a") as file:
            file.write("short\n")
        (place.root / "delivery" / "receipts").mkdir(parents=True)
        ledger = open_ledger(f"sqlite:{place.root / 'delivery' / 'ledger.db'}")
        ledger.open()
        ledger.close()
        with pytest.MonkeyPatch.context() as full:
            full.setattr(launch_folder, "write_parquet", stop_at_second_batch)
            assert launch(place) == 1
        assert [path.name for path in place.output.glob("exposures/*")] == ["00000-000.parquet"]
        assert not place.output.joinpath("summary.json").exists()
        shutil.copytree(place.root, root / "half")
        assert launch(place) == 0
        assert sorted(path.name for path in place.output.iterdir()) == sorted([
            ".lock", "campaigns", "dead_letters", "exposures", "manifest.json", "report.html", "snapshot",
            "sticky.parquet", "summary.json", "survey",
        ])  # fmt: skip
        shutil.copytree(place.root, root / "finished")
        events = place.events()
        yield {name: State(place, root / name, events) for name in ("finished", "half")}


def stop_at_second_batch(path: Path, table: pa.Table) -> None:
    """Stands in for the writing of a Parquet file: the disk is full."""
    if path.name == "00000-001.parquet":
        raise JobError("no room")
    write_parquet(path, table)


def launch(place: Place) -> int:
    return place.launch(f"--customers={place.root / 'customers.csv'}", "--batch_rows=50")


COMMANDS: dict[str, Callable[[Place], int]] = {
    "launch": launch,
    "check": lambda place: main(["check", str(place.output)]),
    "report": lambda place: main(["report", str(place.output)]),
    "why": lambda place: main(["why", "c-9", "codes", "--launch", str(place.output)]),
    "verify-code": lambda place: main(["verify-code", "X", "--launch", str(place.output), "--offer", "five"]),
    "cancel": lambda place: main(["ledger", "cancel", str(place.root / "delivery"), "--launch", str(place.output),
                                  "--campaign", "listed"]),
}  # fmt: skip


def files_of(place: Place) -> list[Path]:
    """The files of the launch's folder and of its events, one of each kind where there are many alike."""
    every = sorted(path.relative_to(place.root) for path in place.output.rglob("*") if path.is_file())
    found = {kind(path): path for path in reversed(every) if path.name not in IDLE}
    return [*sorted(found.values()), sorted(place.root.glob("events/*.avro"))[0].relative_to(place.root)]


def kind(path: Path) -> str:
    """What files alike have in common."""
    if path.parent.name in ("campaigns", "lists") and path.name != "engine.yaml":
        return f"{path.parent}/*{path.suffix}"
    return re.sub(r"-00\d\.", ".", str(path))


def run(command: str, place: Place, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    capsys.readouterr()
    code = COMMANDS[command](place)
    printed = capsys.readouterr()
    return code, (printed.out + printed.err).replace(str(place.root), "PLACE")


def named(path: Path, told: str) -> bool:
    """Whether what was said names the file, or the folder of it that is to be put right."""
    return (
        path.name in told
        or f"PLACE/{path.parent} " in told
        or f"{path.parents[-3] if len(path.parts) > 2 else path} " in told
    )


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("state", ["finished", "half"])
def test_a_damaged_file_is_named_or_does_not_matter(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    states: dict[str, State],
    state: str,
    command: str,
) -> None:
    monkeypatch.setenv("CAMPAIGNS_CODE_SECRET", SECRET)
    launched = states[state]
    place = launched.place
    launched.restore()
    run(command, place, capsys)  # the first time tells what it warns of once
    launched.restore()
    right = run(command, place, capsys)
    launched.restore()
    for number, path in enumerate(files_of(place), [*COMMANDS].index(command)):
        damage = [*DAMAGES][number % len(DAMAGES)]
        if (command, damage, path.suffix) == ("launch", "flip", ".avro"):
            damage = "halve"  # a flipped byte may make a record that is another one, but whole
        DAMAGES[damage](place.root / path)
        code, told = run(command, place, capsys)
        what = (path, damage, told)
        assert code in (0, 1, 2), what
        assert "Traceback" not in told, what
        if (code, told) != right and not (command == "launch" and code == 0):
            if damage == "delete" and path.parts[-2] == "exposures":  # the batch is not done, and that is what is said
                assert re.search("[02] of 3 batches done|its batch is not done|summary.json", told), what
            else:
                assert code, what
                assert named(path, told), what
        elif command == "launch" and code == 0:
            assert place.events() == launched.events, what
            assert main(["check", str(place.output)]) == 0 or path.parts[-2] == "campaigns", what
        launched.restore()
