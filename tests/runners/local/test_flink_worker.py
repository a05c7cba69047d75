"""A worker of Flink's pool that is ended by SIGTERM while its calls are out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from support.delivering import eventually

from bench.deliveries import ROOT
from runners.sandbox.process import running_sandbox
from stores.ledger.sqlite import SqliteLedger

EVENTS = 200
WORKER = """
import atexit, sys, time
sys.path.insert(0, "tests")
from support.dispatching import FakeSettings
from support.wire_events import wire_batch
from runners.local.flink.worker import settle_at_sigterm
from runners.sandbox.process import Sandbox
from schemas.delivery import Batch
from stores.ledger.sqlite_process import SqliteProcess
from connectors.vendors.braze import Braze
from transforms.delivery.dispatch import BatchDispatcher

url, path, events = sys.argv[1], sys.argv[2], int(sys.argv[3])
settle_at_sigterm()
dispatcher = BatchDispatcher(Braze(), SqliteProcess(path), FakeSettings(Sandbox(url, None)), time.time)
dispatcher.open()
atexit.register(dispatcher.close)
now = int(time.time() * 1000)
batches = [wire_batch(range(at, at + 50), "kroger", arrived_at=now) for at in range(0, events, 50)]
dispatcher.start("kroger", batches)
print("out", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("everyone", [False, True])
def test_its_last_calls_are_settled_before_the_ledger_process_ends(tmp_path: Path, everyone: bool) -> None:
    path = str(tmp_path / "ledger.db")
    with running_sandbox([{"answer": "slow", "seconds": 2}]) as sandbox:
        command = [sys.executable, "-c", WORKER, sandbox.url, path, str(EVENTS)]
        with subprocess.Popen(command, cwd=ROOT, start_new_session=True, stdout=subprocess.PIPE) as worker:
            assert worker.stdout is not None
            assert worker.stdout.readline() == b"out\n"
            eventually(lambda: sandbox.summary()["accepted"] == EVENTS, "the calls")
            children = psutil.Process(worker.pid).children(recursive=True)
            os.killpg(worker.pid, signal.SIGTERM)
            if everyone:
                for child in children:
                    child.send_signal(signal.SIGTERM)
            assert worker.wait(60) == 0
        assert children
        assert not psutil.wait_procs(children, timeout=60)[1]
        accepted = sandbox.accepted()
    ledger = SqliteLedger(path)
    ledger.open()
    assert ledger.find(list(accepted)) == dict.fromkeys(accepted, "accepted")
    ledger.close()
