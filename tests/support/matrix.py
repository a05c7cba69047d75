"""The sample campaigns launched and delivered on one engine through one transport, and what came of each customer."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastavro
import yaml

from bench.deliveries import fresh_topic
from examples.journey import customers
from runners.cli.main import main
from stores.deliveries.receipts import open_receipts

CAMPAIGNS = Path(__file__).resolve().parents[2] / "examples/journey/campaigns"
TRANSPORTS = ("file", "pubsub", "kafka")
OF_THE_LAUNCH = ("emitted_at", "deliver_after", "expires_at", "trace")  # times, and who made it


@dataclass
class Answer:
    """What an engine and a transport made of the sample: the events as they were delivered, by id, without the
    launch's times, and the outcome of each by its receipt."""

    events: dict[str, dict[str, Any]]
    outcomes: dict[str, str]


def make_sample(folder: Path) -> Path:
    """The sample's campaigns, which deliver to an outbox, beside the sample's customers and history."""
    shutil.copytree(CAMPAIGNS, folder / "campaigns")
    path = folder / "campaigns/engine.yaml"
    engine = yaml.safe_load(path.read_text("utf-8"))
    engine |= {"delivery": {"vendor": "outbox", "wait": "PT0.3S"}, "workspaces": {}}
    path.write_text(yaml.safe_dump(engine), "utf-8")
    made = ["--output", str(folder / "customers.parquet"), "--history", str(folder / "history.parquet")]
    assert customers.main(made) == 0
    return folder


def answer(sample: Path, place: Path, transport: str, engine: list[str], kafka_host: str) -> Answer:
    """Launches and delivers, and checks that the launch's ledger closes over the delivery."""
    target, source = _transport(place, transport, kafka_host)
    common = ["--campaigns", str(sample / "campaigns"), *engine]
    launch = ["launch", "--customers", str(sample / "customers.parquet"), "--history", str(sample / "history.parquet")]
    assert main([*launch, *common, "--events", target, "--output", str(place / "launch"), "--launch_id=sample"]) == 0
    drain = ["rebatch", *common, "--events", source, "--output", str(place / "delivery"), "--drain", "--idle=3"]
    assert main([*drain, "--ignore_times"]) == 0
    receipts = str(place / "delivery/receipts")
    assert main(["check", str(place / "launch"), "--receipts", receipts]) == 0
    rows = open_receipts([receipts]).execute("SELECT event_id, outcome FROM outcomes").fetchall()
    return Answer(_delivered(place / "delivery/outbox"), dict(rows))


def _transport(place: Path, name: str, kafka_host: str) -> tuple[str, str]:
    """Where the launch writes to, and where the delivery reads from."""
    if name == "file":
        return f"file:{place / 'events'}", f"file:{place / 'events'}"
    return fresh_topic(name, "matrix", kafka_host)


def _delivered(outbox: Path) -> dict[str, dict[str, Any]]:
    """The events of the outbox by id; one that stands twice fails."""
    found: dict[str, dict[str, Any]] = {}
    for folder, _, names in os.walk(outbox):
        for name in names:
            with open(Path(folder) / name, "rb") as file:
                for event in fastavro.reader(file):
                    assert event["event_id"] not in found
                    found[event["event_id"]] = {key: value for key, value in event.items() if key not in OF_THE_LAUNCH}
    return found
