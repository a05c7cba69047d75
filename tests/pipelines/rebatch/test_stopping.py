"""A job that is stopped, on the built-in engine: it delivers what it read, in order, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest
from support.delivering import Delivery, eventually
from support.stopping import gone, in_the_middle, later, many, rest_is_delivered_once, slow_delivery, started

from runners.sandbox.process import Sandbox

pytestmark = pytest.mark.usefixtures("built_in")
ON = ("--drain", "--on=direct")


@pytest.fixture
def delivery(tmp_path: Path, sandbox: Sandbox) -> Delivery:
    return slow_delivery(tmp_path, sandbox)


def test_a_ctrl_c_on_a_terminal_delivers_what_was_read_and_the_next_run_the_rest(
    delivery: Delivery, sandbox: Sandbox
) -> None:
    with started(delivery, *ON, terminal=True) as job:
        children = in_the_middle(sandbox, job)
        job.press(b"\x03")
        assert job.ended() == 0, job.said
    gone(children)
    assert "stopping: what was read is delivered" in job.said
    assert "Traceback" not in job.said
    rest_is_delivered_once(delivery, sandbox, later(delivery))


def test_a_sigterm_to_the_process_group_delivers_what_was_read_and_the_next_run_the_rest(
    delivery: Delivery, sandbox: Sandbox
) -> None:
    with started(delivery, *ON) as job:
        children = in_the_middle(sandbox, job)
        assert children
        assert not [child for child in children if os.getpgid(child.pid) == os.getpgid(job.process.pid)]
        os.killpg(job.process.pid, signal.SIGTERM)
        assert job.ended() == 0, job.said
    gone(children)
    assert "Traceback" not in job.said
    rest_is_delivered_once(delivery, sandbox, later(delivery))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_every_process_of_the_job_does_the_same(
    delivery: Delivery, sandbox: Sandbox, number: signal.Signals
) -> None:
    with started(delivery, *ON) as job:
        children = in_the_middle(sandbox, job)
        for process in (*children, psutil.Process(job.process.pid)):
            process.send_signal(number)
        assert job.ended() == 0, job.said
    gone(children)
    assert "Traceback" not in job.said
    rest_is_delivered_once(delivery, sandbox, later(delivery))


def test_a_terminal_that_closes_does_the_same(delivery: Delivery, sandbox: Sandbox) -> None:
    with started(delivery, *ON, terminal=True) as job:
        children = in_the_middle(sandbox, job)
        job.hang_up()
        assert job.ended() == 0
    gone(children)
    assert delivery.summary()["accepted"] == len(many())
    rest_is_delivered_once(delivery, sandbox, later(delivery))


def test_signals_in_the_same_second_are_one_stop(delivery: Delivery, sandbox: Sandbox) -> None:
    with started(delivery, *ON) as job:
        in_the_middle(sandbox, job)
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            job.process.send_signal(number)
        assert job.ended() == 0, job.said
    assert "Traceback" not in job.said
    rest_is_delivered_once(delivery, sandbox, later(delivery))


def test_a_later_second_signal_ends_the_job_at_once_and_leaves_no_child(delivery: Delivery, sandbox: Sandbox) -> None:
    sandbox.script([{"answer": "slow", "seconds": 20}])
    with started(delivery, *ON) as job:
        children = in_the_middle(sandbox, job)
        job.process.send_signal(signal.SIGTERM)
        eventually(lambda: "stopping" in job.said, "the word that it stops")
        time.sleep(1.2)
        job.process.send_signal(signal.SIGHUP)  # a terminal that closes meanwhile does not hurry it
        assert job.process.poll() is None
        job.process.send_signal(signal.SIGTERM)
        assert job.ended() == -signal.SIGTERM
    gone(children)
    assert "Traceback" not in job.said


def test_a_kill_9_leaves_no_child(delivery: Delivery, sandbox: Sandbox) -> None:
    with started(delivery, *ON) as job:
        children = in_the_middle(sandbox, job)
        assert [child for child in children if "stores.ledger.sqlite_process" in child.cmdline()]
        job.process.kill()
        assert job.ended() == -signal.SIGKILL
        gone(children)
    assert "Traceback" not in job.said


@pytest.mark.parametrize("moment", ["loaded", "locked", "summed up"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_job_begins_or_ends_lets_it_end_in_order(
    delivery: Delivery, sandbox: Sandbox, moment: str, number: signal.Signals
) -> None:
    program = (sys.executable, "-m", "runners.cli.start")
    with started(delivery, *ON, program=program) as job:
        signs = {
            "loaded": lambda: handles(job.process.pid, signal.SIGTERM),
            "locked": (delivery.output / "lock").exists,
            "summed up": (delivery.output / "summary.json").exists,
        }
        eventually(signs[moment], moment)
        job.process.send_signal(number)
        assert job.ended() == 0, job.said
    assert "Traceback" not in job.said
    sandbox.script([])
    assert delivery.run("--drain") == 0
    assert sandbox.accepted() == dict.fromkeys(many(), 1)


def handles(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal."""
    if sys.platform != "linux":
        return bool(psutil.Process(pid).num_threads() > 1)
    line = next(one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("SigCgt"))
    return bool(int(line.split()[1], 16) >> (number - 1) & 1)


def test_a_ctrl_c_before_the_program_is_loaded_ends_it_without_a_traceback(delivery: Delivery) -> None:
    program = (sys.executable, "-m", "runners.cli.start")
    with started(delivery, *ON, program=program, terminal=True) as job:
        eventually(lambda: "rebatch" in psutil.Process(job.process.pid).cmdline(), "the program")
        time.sleep(0.3)  # Python itself has begun
        job.press(b"\x03")
        assert job.ended() in (-signal.SIGINT, 0)
    assert "Traceback" not in job.said


@pytest.mark.parametrize("on_unknown", ["resend", "hold"])
def test_a_ledger_process_that_is_killed_stops_the_job_and_nobody_is_sent_to_twice(
    delivery: Delivery, sandbox: Sandbox, on_unknown: str
) -> None:
    delivery.configure(on_unknown=on_unknown)
    sandbox.script([{"answer": "slow", "seconds": 1}])
    with started(delivery, *ON) as job:
        children = in_the_middle(sandbox, job)
        next(child for child in children if "stores.ledger.sqlite_process" in child.cmdline()).kill()
        assert job.ended() == 1
    gone(children)
    assert "Rebatch stopped: The process that keeps the ledger" in job.said
    assert "Run the same command again" in job.said
    assert "Traceback" not in job.said
    rest_is_delivered_once(delivery, sandbox, later(delivery))


HASTY = """
import sys
from stores.ledger import answer_watch
answer_watch.ALARM_S, answer_watch.LIMIT_S = 1.0, float(sys.argv.pop(1))
from runners.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_ledger_process_that_is_stopped_is_told_and_the_job_goes_on_with_it(
    delivery: Delivery, sandbox: Sandbox
) -> None:
    with started(delivery, *ON, program=(sys.executable, "-c", HASTY, "600")) as job:
        ledger = next(one for one in in_the_middle(sandbox, job) if "stores.ledger.sqlite_process" in one.cmdline())
        ledger.send_signal(signal.SIGSTOP)
        eventually(lambda: "ALARM: the process that keeps the ledger" in job.said, "the alarm")
        ledger.send_signal(signal.SIGCONT)
        assert job.ended() == 0, job.said
    assert "answers again" in job.said
    assert sandbox.accepted() == dict.fromkeys(many(), 1)


def test_a_ledger_process_that_stands_still_ends_the_job_and_nobody_is_sent_to_twice(
    delivery: Delivery, sandbox: Sandbox
) -> None:
    with started(delivery, *ON, program=(sys.executable, "-c", HASTY, "3")) as job:
        children = in_the_middle(sandbox, job)
        next(child for child in children if "stores.ledger.sqlite_process" in child.cmdline()).send_signal(
            signal.SIGSTOP
        )
        assert job.ended() == 1
    gone(children)
    assert "Rebatch stopped: The process that keeps the ledger" in job.said
    assert "had not answered for 3 s and was killed" in job.said
    assert "Traceback" not in job.said
    rest_is_delivered_once(delivery, sandbox, later(delivery))
