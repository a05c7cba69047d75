"""Launches in a temporary folder by the command line, and their results."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastavro
import pyarrow.parquet as pq
from support.factories import SECRET, any_campaign, any_customer_file, any_engine, any_folder

from pipelines.launch.driver import run
from stores.dead_letters import read_dead_letters

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Place:
    """A folder with campaigns, customers and the output of a launch."""

    root: Path

    @property
    def output(self) -> Path:
        return self.root / "out"

    def argv(self, *more: str) -> list[str]:
        """The options of the launch; `more` options replace the default ones."""
        default = [
            f"--campaigns={self.root / 'campaigns'}",
            f"--customers={self.root / 'customers.parquet'}",
            f"--events=file:{self.root / 'events'}",
            f"--output={self.output}",
            "--launch_id=launch-1",
        ]
        names = {option.partition("=")[0] for option in more}
        return [*(option for option in default if option.partition("=")[0] not in names), *more]

    def launch(self, *more: str) -> int:
        """The exit code of a launch in this process."""
        return run(self.argv(*more))

    def start(self, *more: str) -> subprocess.Popen[str]:
        """The launch in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "pipelines.launch", *self.argv(*more)],
            cwd=ROOT,
            env={**os.environ, "CAMPAIGNS_CODE_SECRET": SECRET},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def events(self) -> dict[str, dict[str, Any]]:
        """The events by id, without the time of the launch; fails if an id is there twice."""
        events: dict[str, dict[str, Any]] = {}
        for path in sorted((self.root / "events").glob("*.avro")):
            with open(path, "rb") as file:
                for event in fastavro.reader(file):
                    event.pop("emitted_at")
                    assert event["event_id"] not in events
                    events[event["event_id"]] = event
        return events

    def exposures(self) -> list[dict[str, Any]]:
        """The rows of the exposures."""
        rows: list[dict[str, Any]] = pq.read_table(self.output / "exposures").to_pylist()
        return rows

    def dead_letters(self) -> list[Any]:
        """All dead letters."""
        return [
            letter
            for path in sorted((self.output / "dead_letters").glob("*.avro"))
            for letter in read_dead_letters(str(path))
        ]


RICH = [
    any_campaign(
        id="codes",
        priority=1,
        audience={"all": ["spend >= 5", {"not": {"list": "lists/legal.csv"}}, {"not": {"audience": "idle"}}]},
        experiment={
            "key": "codes-split",
            "holdout": 0.1,
            "variants": [{"key": "with", "weight": 0.6, "offers": ["five"]}, {"key": "plain", "weight": 0.4}],
        },
        offers=[
            {"id": "five", "kind": "unique_code", "value": "5.00", "currency": "USD", "valid_for": "P14D",
             "budget": 60, "on_exhausted": "fallback", "fallback": "one"},
            {"id": "one", "kind": "fixed", "code": "ONE", "value": "1.00", "currency": "USD"},
        ],
        schedule={"start": "2026-04-01T09:00", "local_time": True, "expires": "P3D", "quiet_hours": ["21:00", "08:00"]},
        content={"template": "plain", "properties": {"name": "coalesce(first_name, 'friend')", "orders": "orders"}},
    ),
    any_campaign(
        id="listed",
        priority=2,
        audience="orders >= 3",
        experiment=None,
        offers=[{"id": "list", "kind": "code_list", "codes": "lists/codes.csv", "on_exhausted": "suppress"}],
        content={"template": "listed", "offers": ["list"]},
        schedule={"start": "2026-06-01T09:00"},
    ),
    any_campaign(id="text", channel="sms", experiment={"key": "t", "sticky": True, "variants": [{"key": "a"}, {"key": "b"}]},
                 schedule={"start": "2026-04-01T09:00"}),
]  # fmt: skip
LISTS = {"legal.csv": "c-7\nc-8\n", "codes.csv": "\n".join(f"LIST-{n}" for n in range(40))}


def any_place(root: Path, *campaigns: dict[str, Any], customers: int = 300, **changes: Any) -> Place:
    """A place with three campaigns that use most features, or with those given."""
    engine = changes.pop(
        "engine",
        any_engine(
            holdouts={"global": {"share": 0.05, "seed": "g"}, "retailers": {"store-1": 0.1}},
            caps=[{"channel": "email", "at_most": 1, "within": "P7D"}],
            shared_address={"column": "spend", "keep": "highest"},
        ),
    )
    lists = changes.pop("lists", LISTS)
    any_folder(root / "campaigns", *(campaigns or RICH), engine=engine, lists=lists, audiences={"idle": "orders = 0"})
    changes.setdefault("email", lambda n: f"c{n - 3 if n % 10 == 9 else n}@example.com")
    any_customer_file(root / "customers.parquet", customers, **changes)
    return Place(root)


def launched(root: Path, *campaigns: dict[str, Any], **engine: Any) -> Place:
    """A finished launch; `engine` are changes to its engine.yaml."""
    place = any_place(root, *campaigns, customers=120, engine=any_engine(**engine))
    assert place.launch("--batch_rows=50") == 0
    return place
