"""Deliveries in a temporary folder: events, a job that is run or started, and what came of it."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from bench.deliveries import ROOT, Wire, kill, make_event, on_the_wire, write_campaigns, write_file
from pipelines.rebatch.factories import make_ledger
from runners.cli.main import main
from stores.dead_letters import read_dead_letters
from stores.deliveries.receipts import open_receipts
from stores.ledger.open import open_ledger

KEY = {"SANDBOX_KEY": "key"}
NOW = int(time.time() * 1000)
QUICK = {"wait": "PT0.3S", "timeout": "PT15S", "lease": "PT20S"}
PATIENCE_S = 60.0  # until what must come has come; nothing waits so long when all is well


def any_events(count: int, name: str = "a", **changes: Any) -> dict[str, Wire]:
    """Events of two retailers by id, as they are published: the same ones again, others for another name."""
    rnd = random.Random(name)
    customers = changes.pop("customers", lambda number: f"{name}-{number}")
    retailers = changes.pop("retailers", ("kroger", "aldi"))
    events = [
        make_event(rnd, number, retailers[number % len(retailers)], NOW, customer_id=customers(number), **changes)
        for number in range(count)
    ]
    return {event["event_id"]: wire for event, wire in zip(events, on_the_wire(events), strict=True)}


def eventually(seen: Callable[[], Any], what: str = "it", patience_s: float = PATIENCE_S) -> Any:
    """What `seen` says once that is true. Fails when it does not become so."""
    end = time.monotonic() + patience_s
    while not (found := seen()):
        assert time.monotonic() < end, f"{what} did not come"
        time.sleep(0.1)
    return found


@dataclass
class Delivery:
    """A folder with campaigns and events, and room for a delivery. `source` is where the events are read from."""

    root: Path
    url: str = "http://127.0.0.1:9"
    source: str = ""

    @property
    def output(self) -> Path:
        return self.root / "out"

    @property
    def campaigns(self) -> Path:
        return self.root / "campaigns"

    @property
    def ledger(self) -> str:
        return f"sqlite:{self.output / 'ledger.db'}"

    def configure(self, workspaces: dict[str, Any] | None = None, **delivery: Any) -> Delivery:
        """engine.yaml anew."""
        write_campaigns(self.campaigns, self.url, {**QUICK, **delivery}, workspaces)
        return self

    def spoil(self, **changes: Any) -> None:
        """Other values in engine.yaml."""
        path = self.campaigns / "engine.yaml"
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))

    def put(self, part: str, events: dict[str, Wire]) -> None:
        """One more finished file of events."""
        (self.root / "events").mkdir(exist_ok=True)
        write_file(self.root / "events", part, [body for body, _ in events.values()])

    def argv(self, *more: str) -> list[str]:
        """The command line of the job."""
        events = self.source or f"file:{self.root / 'events'}"
        return [f"--campaigns={self.campaigns}", f"--events={events}", f"--output={self.output}", *more]

    def run(self, *more: str) -> int:
        """The exit code of the command in this process."""
        return main(["rebatch", *self.argv(*more)])

    @contextmanager
    def started(self, *more: str, code: Path = ROOT, **environment: str) -> Iterator[subprocess.Popen[str]]:
        """The command of the code in a folder, in a process of its own, ended with the block."""
        with subprocess.Popen(
            [sys.executable, "-m", "runners.cli.main", "rebatch", *self.argv(*more)],
            cwd=code, env={**os.environ, **KEY, **environment}, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as job:  # fmt: skip
            try:
                yield job
            finally:
                kill(job)  # type: ignore[arg-type]

    def summary(self) -> dict[str, Any]:
        """summary.json of the last run."""
        return dict(json.loads((self.output / "summary.json").read_text()))

    def outcomes(self) -> dict[str, str]:
        """Event id to outcome, as the receipts say."""
        found = open_receipts([str(self.output / "receipts")]).execute("SELECT event_id, outcome FROM outcomes")
        return dict(found.fetchall())

    def settled(self, *names: str) -> dict[str, str]:
        """Event id to outcome, as the ledger says."""
        ledger = open_ledger(self.ledger)
        ledger.open()
        try:
            return ledger.find(names)
        finally:
            ledger.close()

    def letters(self) -> list[Any]:
        """All dead letters."""
        found = sorted((self.output / "dead_letters").glob("*.avro"))
        return [letter for path in found for letter in read_dead_letters(str(path))]


def run(delivery: Delivery, *more: str) -> int:
    """The exit code of a drain that ends as its process would: no dispatcher and no process has the ledger open."""
    closings: list[Callable[[], None]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transforms.delivery.deliver_batches.atexit", SimpleNamespace(register=closings.append))
        code = delivery.run("--drain", *more)
    for close in closings:
        close()
    make_ledger(delivery.ledger).close()
    return code


class ToPlace(Delivery):
    """A delivery into a launch's folder, where the questions look for it."""

    @property
    def output(self) -> Path:
        return self.root / "out" / "delivery"
