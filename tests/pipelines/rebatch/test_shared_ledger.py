"""Two deliveries with one ledger: after a kill of the first, the second sends what never left."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from support.delivering import Delivery, any_events
from support.journals import kill

from runners.sandbox.process import Sandbox
from schemas.delivery import Claim, ClaimRequest
from stores.deliveries.call_journal import FileJournal
from stores.deliveries.delivery_folder import DeliveryFolder
from stores.ledger.open import open_ledger

pytestmark = pytest.mark.usefixtures("built_in")


class Second(Delivery):
    """Another output folder for the same events."""

    @property
    def output(self) -> Path:
        return self.root / "second"


@pytest.mark.parametrize("lapsed", [False, True])
def test_a_second_delivery_sends_what_a_killed_first_one_had_claimed_and_not_sent(
    tmp_path: Path, sandbox: Sandbox, capsys: pytest.CaptureFixture[str], lapsed: bool
) -> None:
    first, second = (kind(tmp_path, sandbox.url).configure(on_unknown="hold") for kind in (Delivery, Second))
    ledger, events = f"--ledger=sqlite:{tmp_path}/shared.db", any_events(200)
    first.put("part-0", any_events(10, "earlier"))
    assert first.run("--drain", ledger) == 0
    killed(first, ledger.removeprefix("--ledger="), list(events), lapsed)
    second.put("part-1", events)
    assert second.run("--drain", ledger) == 0
    assert "200 were in no call and are released" in capsys.readouterr().err
    assert second.summary()["accepted"] == 200
    assert set(sandbox.accepted().values()) == {1}


def killed(delivery: Delivery, uri: str, names: list[str], lapsed: bool) -> None:
    """What a process of the delivery leaves that was killed between its claims and its calls."""
    now = int(time.time() * 1000) - (60_000 if lapsed else 0)
    journal, ledger = FileJournal(DeliveryFolder(delivery.output).journals), open_ledger(uri)
    journal.claiming("killed", names)
    ledger.open()
    ledger.claim(ClaimRequest([Claim(name, "b") for name in names], "killed", now, now + 30_000, "hold"))
    ledger.close()
    journal.granted("killed", 4)
    kill(journal)
