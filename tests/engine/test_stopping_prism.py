"""A job that is stopped on Prism: Prism ends after the job, the ledger process last, and nothing is left behind."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest
from support.delivering import KEY, Delivery, eventually
from support.stopping import EVENTS, gone, in_the_middle, later, many, rest_is_delivered_once, slow_delivery, started

from bench.deliveries import kill
from runners.sandbox.process import Sandbox

pytestmark = pytest.mark.engine


@pytest.fixture(autouse=True)
def _environment(prism_engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMPAIGNS_PRISM", prism_engine)
    monkeypatch.setenv("SANDBOX_KEY", KEY["SANDBOX_KEY"])


@pytest.fixture
def delivery(tmp_path: Path, sandbox: Sandbox) -> Delivery:
    return slow_delivery(tmp_path, sandbox)


def named(children: list[psutil.Process], word: str) -> psutil.Process:
    """The child that runs a program, not its guard."""
    return next(child for child in children if word in " ".join(child.cmdline()[:3]))


@pytest.mark.parametrize("more", [(), ("--drain",)])
def test_a_ctrl_c_on_a_terminal_delivers_what_was_read_and_the_next_run_the_rest(
    delivery: Delivery, sandbox: Sandbox, more: tuple[str, ...]
) -> None:
    with started(delivery, "--on=prism", *more, terminal=True) as job:
        children = in_the_middle(sandbox, job)
        job.press(b"\x03")
        assert job.ended() == 0, job.said
    gone(children)
    assert "stopping: what was read is delivered" in job.said
    assert "Traceback" not in job.said
    rest_is_delivered_once(delivery, sandbox, later(delivery), "--on=prism")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_process_group_delivers_what_was_read_and_the_next_run_the_rest(
    delivery: Delivery, sandbox: Sandbox, number: signal.Signals
) -> None:
    with started(delivery, "--on=prism") as job:
        children = in_the_middle(sandbox, job)
        assert named(children, "prism")
        assert named(children, "stores.ledger")
        assert not [child for child in children if os.getpgid(child.pid) == os.getpgid(job.process.pid)]
        os.killpg(job.process.pid, number)
        assert job.ended() == 0, job.said
    gone(children)
    assert delivery.summary()["accepted"] == EVENTS
    assert "Traceback" not in job.said
    rest_is_delivered_once(delivery, sandbox, later(delivery), "--on=prism")


@pytest.mark.parametrize("on_unknown", ["resend", "hold"])
def test_a_signal_to_every_process_ends_prism_and_what_it_held_waits_for_the_next_run(
    delivery: Delivery, sandbox: Sandbox, on_unknown: str
) -> None:
    delivery.configure(on_unknown=on_unknown)
    sandbox.script([{"answer": "slow", "seconds": 1}])
    with started(delivery, "--on=prism") as job:
        children = in_the_middle(sandbox, job)
        for process in (psutil.Process(job.process.pid), *children):
            process.send_signal(signal.SIGTERM)
        assert job.ended() == 0, job.said
    gone(children)
    rest_is_delivered_once(delivery, sandbox, later(delivery), "--on=prism")


def test_a_kill_9_leaves_no_child_though_nobody_kills_them(delivery: Delivery, sandbox: Sandbox) -> None:
    with started(delivery, "--on=prism") as job:
        children = in_the_middle(sandbox, job)
        assert len(children) == 3  # the ledger process, Prism's guard, Prism
        job.process.kill()
        assert job.ended() == -signal.SIGKILL
        gone(children)


def test_the_kill_of_the_certificate_waits_until_the_children_have_ended(delivery: Delivery, sandbox: Sandbox) -> None:
    with started(delivery, "--on=prism") as job:
        children = in_the_middle(sandbox, job)
        assert kill(job.process)
        assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
        assert not kill(job.process)


@pytest.mark.parametrize("moment", ["locked", "prism", "summed up"])
def test_a_ctrl_c_while_the_job_begins_or_ends_lets_it_end_in_order(
    delivery: Delivery, sandbox: Sandbox, moment: str
) -> None:
    with started(delivery, "--drain", "--on=prism", terminal=True) as job:
        signs = {
            "locked": (delivery.output / "lock").exists,
            "prism": job.children,
            "summed up": (delivery.output / "summary.json").exists,
        }
        eventually(signs[moment], moment)
        job.press(b"\x03")
        assert job.ended() == 0, job.said
    assert "Traceback" not in job.said
    sandbox.script([])
    assert delivery.run("--drain", "--on=prism") == 0
    assert sandbox.accepted() == dict.fromkeys(many(), 1)


@pytest.mark.parametrize(("program", "word"), [("stores.ledger", "keeps the ledger"), ("prism", "of Prism has ended")])
@pytest.mark.parametrize("on_unknown", ["resend", "hold"])
def test_a_child_that_is_killed_stops_the_job_and_nobody_is_sent_to_twice(
    delivery: Delivery, sandbox: Sandbox, program: str, word: str, on_unknown: str
) -> None:
    delivery.configure(on_unknown=on_unknown)
    sandbox.script([{"answer": "slow", "seconds": 1}])
    with started(delivery, "--on=prism") as job:
        children = in_the_middle(sandbox, job)
        named(children, program).kill()
        assert job.ended() == 1, job.said
    gone(children)
    assert word in job.said[job.said.index("Rebatch stopped: ") :].splitlines()[0]
    rest_is_delivered_once(delivery, sandbox, later(delivery), "--on=prism")
