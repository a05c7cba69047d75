"""A disk that becomes full under a running delivery: what the vendor answered is not forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.delivering import Delivery, any_events, eventually
from support.disks import fill, small_disk

from runners.sandbox.process import Sandbox

pytestmark = pytest.mark.usefixtures("built_in")
MB = 1 << 20
EVENTS = any_events(4_000, retailers=tuple(f"store-{number}" for number in range(8)))
PACE = {"*": {"pace": {"per_second": 50, "burst": 50}}}
SLOW = [{"answer": "slow", "seconds": 0.4}]


@pytest.fixture
def delivery(tmp_path: Path, sandbox: Sandbox) -> Iterator[Delivery]:
    """Four thousand events, to a vendor that takes its time; the output folder is a disk of its own."""
    made = Delivery(tmp_path, sandbox.url).configure(PACE, on_unknown="hold")
    made.put("part-0", EVENTS)
    made.output.mkdir()
    sandbox.script(SLOW)
    with small_disk(made.output, 160):
        yield made


@pytest.mark.parametrize("leave", [0, 50 * MB], ids=["full in an instant", "nearly full"])
def test_a_disk_that_fills_up_ends_the_job_and_after_it_nothing_is_unknown_or_twice(
    delivery: Delivery, sandbox: Sandbox, leave: int
) -> None:
    with delivery.started("--drain", CAMPAIGNS_PRISM="/none") as job:
        eventually(lambda: len(sandbox.accepted()) >= 300 or job.poll() is not None, "some acceptance")
        filling = fill(delivery.output, leave)
        _, err = job.communicate(timeout=300)
    assert job.returncode == 1, err
    assert "Rebatch stopped: the disk is nearly full" in err
    assert "MB more. No more calls are made" in err
    taken = set(sandbox.accepted())
    assert 0 < len(taken) < len(EVENTS)
    assert delivery.settled(*taken) == dict.fromkeys(taken, "accepted"), "each answer is settled before the job ends"

    filling.unlink()
    sandbox.script([])
    delivery.configure(on_unknown="hold")
    with delivery.started("--drain", CAMPAIGNS_PRISM="/none") as job:
        _, err = job.communicate(timeout=300)
    assert job.returncode == 0, err
    assert sandbox.accepted() == dict.fromkeys(EVENTS, 1)
    assert delivery.outcomes() == dict.fromkeys(EVENTS, "accepted")


def test_a_disk_that_is_full_at_the_start_is_told_before_anything_is_sent(
    delivery: Delivery, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(delivery.output, 80 * MB)
    assert delivery.run("--drain") == 1
    assert "free at least 16 MB more" in capsys.readouterr().err
    assert sandbox.accepted() == {}
