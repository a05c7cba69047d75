"""The owner of an account, with the real ledger and the real settings."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.factories import any_engine, any_folder

from pipelines.rebatch.settings import Settings
from stores.ledger.sqlite import SqliteLedger
from transforms.pacing.account_owners import KEEP_S, AccountOwners

URL = "https://rest.example"


class Clock:
    """Seconds that move when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """A folder of campaigns, a ledger's file, and workers that share both."""

    def __init__(self, root: Path, **workspaces: Any) -> None:
        self.root, self.clock = root, Clock()
        any_folder(root)
        self.configure(**workspaces)
        self.ledgers: list[SqliteLedger] = []

    def configure(self, **workspaces: Any) -> None:
        """Write engine.yaml; `all` is the common workspace."""
        named = {name if name != "all" else "*": one for name, one in workspaces.items()}
        engine = any_engine(delivery={"vendor": "braze"}, workspaces=named)
        (self.root / "engine.yaml").write_text(json.dumps(engine, ensure_ascii=False))  # YAML too, without aliases
        os.utime(self.root / "engine.yaml", (self.clock.now, self.clock.now))
        self.clock.now += 10

    def worker(self) -> Worker:
        """A process that has just started."""
        ledger = SqliteLedger(str(self.root / "ledger.db"))
        ledger.open()
        self.ledgers.append(ledger)
        return Worker(Settings(self.root, self.clock), ledger, self.clock)


class Worker:
    """One process's settings and owners."""

    def __init__(self, settings: Settings, ledger: SqliteLedger, clock: Clock) -> None:
        self.settings, self.ledger = settings, ledger
        self.owners = AccountOwners(ledger.change, settings, clock)

    def check(self, retailer: str) -> str | None:
        """What keeps a retailer from being sent to."""
        return self.owners.check(self.settings.account(retailer))


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The keys of all retailers; two variables have one value."""
    values = {"BK_KROGER_2": "1", "BK____": "2", "BK_ALDI": "3", "BK_LIDL": "3", "BK_TESCO": "4", "ONE": "5"}
    for name, value in values.items():
        monkeypatch.setenv(name, f"key-number-{value}")


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Any]:
    benches: list[Bench] = []

    def bench(**workspaces: Any) -> Bench:
        benches.append(Bench(tmp_path, **workspaces))
        return benches[-1]

    yield bench
    for ledger in [ledger for one in benches for ledger in one.ledgers]:
        ledger.close()


COMMON = {"url": URL, "key_env": "BK_{retailer}"}
CASES: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "names that make one variable": ({"all": COMMON}, "kroger-2", "kroger_2", "key_env = BK_KROGER_2"),
    "names that differ in capitals": ({"all": COMMON}, "kroger-2", "Kroger.2", "key_env = BK_KROGER_2"),
    "names without Latin letters": ({"all": COMMON}, "克罗格", "沃尔玛", "key_env = BK____"),
    "one key for all": ({"all": {"url": URL, "key_env": "ONE"}}, "a", "b", "key_env = ONE"),
    "one variable in two entries": (
        {"a": {"url": URL, "key_env": "ONE"}, "b": {"url": "https://other.example", "key_env": "ONE"}},
        "a", "b", "key_env = ONE",
    ),
    "an entry and the common one": (
        {"all": COMMON, "mine": {"key_env": "BK_TESCO"}}, "mine", "tesco", "key_env = BK_TESCO"
    ),
    "two variables of one key": ({"all": COMMON}, "aldi", "lidl", f"url = {URL}"),
    "one key at one url, written in two ways": (
        {"all": {"key_env": "BK_{retailer}"}, "aldi": {"url": "HTTPS://REST.example:443/"}, "lidl": {"url": URL}},
        "aldi", "lidl", f"url = {URL}",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_two_retailers_never_have_one_account(make: Any, case: str, caplog: pytest.LogCaptureFixture) -> None:
    workspaces, first, second, says = CASES[case]
    worker = make(**workspaces).worker()
    assert worker.check(first) is None
    with caplog.at_level(logging.ERROR):
        problems = [worker.check(second) for _ in range(3)]
    assert problems[0] is not None
    assert problems == [problems[0]] * 3
    (record,) = caplog.records
    message = record.getMessage()
    assert record.levelno == logging.ERROR
    assert first in message
    assert second in message
    assert says in message
    assert "shared_account" in message
    assert "key-number" not in message
    assert worker.check(first) is None, "the one that was there before goes on"


def test_the_first_owner_holds_for_all_processes_and_after_a_restart(make: Any) -> None:
    bench = make(all=COMMON)
    assert bench.worker().check("kroger_2") is None
    others = [bench.worker() for _ in range(2)]
    assert [worker.check("kroger-2") is None for worker in others] == [False, False]
    assert [worker.check("kroger_2") for worker in others] == [None, None]


def test_one_of_two_retailers_at_the_same_moment_is_the_owner(make: Any) -> None:
    bench = make(all=COMMON)
    names = ["kroger-2", "kroger_2", "Kroger.2", "KROGER 2"] * 4
    workers = [bench.worker() for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        problems = list(pool.map(lambda pair: pair[0].check(pair[1]), zip(workers * 2, names, strict=True)))
    allowed = {name for name, problem in zip(names, problems, strict=True) if problem is None}
    assert len(allowed) == 1


def test_an_owner_is_cached_for_ten_minutes(make: Any) -> None:
    bench = make(all=COMMON)
    worker = bench.worker()
    asked: list[str] = []
    real = worker.ledger.change

    def noted(cell: str, update: Any) -> Any:
        asked.append(cell)
        return real(cell, update)

    worker.owners = AccountOwners(noted, worker.settings, bench.clock)
    for _ in range(100):
        assert worker.check("aldi") is None
    assert len(asked) == 2
    bench.clock.now += KEEP_S + 1
    assert worker.check("aldi") is None
    assert len(asked) == 4


def test_a_shared_account_is_for_those_who_name_it(make: Any) -> None:
    shared = {"url": URL, "key_env": "ONE"}
    family = {**shared, "shared_account": "family"}
    worker = make(a=family, b=family, c=shared, d={**shared, "shared_account": "others"}).worker()
    assert [worker.check(name) is None for name in "abcdab"] == [True, True, False, False, True, True]


def test_a_shared_account_of_the_common_workspace_is_for_all(make: Any) -> None:
    worker = make(all={"url": URL, "key_env": "ONE", "shared_account": "all"}).worker()
    assert [worker.check(name) for name in ("a", "b", "c")] == [None] * 3


def test_a_second_retailer_is_allowed_when_both_name_the_shared_account(make: Any) -> None:
    bench = make(all=COMMON)
    worker = bench.worker()
    assert [worker.check(name) is None for name in ("kroger-2", "kroger_2")] == [True, False]
    bench.configure(**{"all": {**COMMON, "shared_account": "kroger"}})
    assert [worker.check(name) for name in ("kroger_2", "kroger-2")] == [None, None]


@pytest.mark.parametrize("moved", ["kroger-2", "kroger_2"])
def test_a_second_retailer_is_allowed_when_either_gets_its_own_account(make: Any, moved: str) -> None:
    bench = make(all=COMMON)
    worker, other = bench.worker(), bench.worker()
    assert [worker.check(name) is None for name in ("kroger-2", "kroger_2")] == [True, False]
    assert other.check("kroger_2") is not None
    bench.configure(**{"all": COMMON, moved: {"key_env": "BK_TESCO"}})
    for one in (worker, other, bench.worker()):
        assert [one.check(name) for name in ("kroger_2", "kroger-2")] == [None, None]


def test_a_new_key_in_the_same_variable_is_the_same_account(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = make(all=COMMON)
    assert bench.worker().check("aldi") is None
    monkeypatch.setenv("BK_ALDI", "another-key")
    assert bench.worker().check("aldi") is None


def test_no_key_and_no_variable_is_in_the_ledger(make: Any) -> None:
    bench = make(all=COMMON)
    bench.worker().check("aldi")
    files = b"".join(path.read_bytes() for path in bench.root.glob("ledger.db*"))
    assert b"aldi" in files
    assert b"key-number" not in files
    assert b"BK_ALDI" not in files
