from __future__ import annotations

import logging
import os
import pickle
import time
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.factories import any_engine, any_folder

from connectors.secrets import Secrets
from pipelines.rebatch.delivery_files import check_delivery
from pipelines.rebatch.settings import Settings
from schemas.campaigns.accounts import filled_url
from schemas.campaigns.configuration import load_configuration
from schemas.campaigns.workspaces import Delivery
from schemas.problems import InputError, Problem

BRAZE = {"vendor": "braze"}
COMMON = {"url": "https://rest.example/{retailer}", "key_env": "KEY_{retailer}"}


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def folder_of(root: Path, files: dict[str, str] | None = None, **engine: Any) -> Path:
    folder = any_folder(root, engine=any_engine(**engine))
    for name, text in (files or {}).items():
        (folder / name).write_text(text)
    return folder


def edit(folder: Path, text: str | None = None, file: str = "engine.yaml", **engine: Any) -> None:
    (folder / file).write_text(text if text is not None else yaml.safe_dump(any_engine(**engine)))
    os.utime(folder / file, (time.time(), os.stat(folder / file).st_mtime + 10))


def test_a_workspace_takes_what_it_leaves_out_from_the_common_one(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("KEY_KROGER_2", " secret\n")
    folder = folder_of(
        tmp_path,
        {"plain.liquid": "Hi {{ name }}"},
        delivery=BRAZE,
        workspaces={"*": {**COMMON, "templates": {"plain": "plain.liquid"}}, "kroger-2": {"pace": {"per_second": 7}}},
    )
    settings = Settings(folder, Clock())
    account = settings.account("kroger-2")
    assert (account.url, account.key, account.timeout_s) == ("https://rest.example/kroger-2", "secret", 10)
    assert account.templates == {"plain": "Hi {{ name }}"}
    assert "secret" not in repr(account)
    terms = settings.limits("kroger-2")
    assert terms.workspace.pace is not None
    assert terms.workspace.pace.per_second == 7
    assert terms.zone == "America/New_York"
    assert settings.limits("kroger-2").workspace is terms.workspace


def test_the_outbox_needs_neither_key_nor_url(tmp_path: Path) -> None:
    account = Settings(folder_of(tmp_path), Clock(), outbox="/out/{retailer}").account("a/b")
    assert (account.url, account.key) == ("/out/a%2Fb", "")


@pytest.mark.parametrize(
    ("name", "filled"), [("a b", "x/a%20b"), ("../y", "x/..%2Fy"), ("..", "x/%2E%2E"), ("a.b", "x/a.b")]
)
def test_a_retailer_stays_one_part_of_its_url(name: str, filled: str) -> None:
    assert filled_url("x/{retailer}", name) == filled


def test_an_edit_is_live_five_seconds_later_and_not_looked_for_before(tmp_path: Path) -> None:
    clock = Clock()
    folder = folder_of(tmp_path)
    settings = Settings(folder, clock)
    assert settings.workspace("kroger").paused is None
    edit(folder, workspaces={"kroger": {"paused": True}})
    clock.now += 4.9
    assert settings.workspace("kroger").paused is None
    clock.now += 0.1
    assert settings.workspace("kroger").paused is True


def test_an_edited_template_and_edited_signals_are_live_too(tmp_path: Path) -> None:
    clock = Clock()
    warm_up = {"ladder": [10, 20, 30], "started": "2026-04-01", "signals": "signals.csv"}
    head = "date,retailer_id,sent,bounced,complained\n"
    folder = folder_of(
        tmp_path,
        {"plain.liquid": "old", "signals.csv": head + "2026-04-01,kroger,10,0,0\n"},
        workspaces={"kroger": {"templates": {"plain": "plain.liquid"}, "pace": {"warm_up": warm_up}}},
    )
    settings = Settings(folder, clock, "/out")
    day = date(2026, 4, 2)
    assert (settings.account("kroger").templates["plain"], settings.files.current().warm_up_limit("kroger", day)) == (
        "old",
        20,
    )
    assert settings.limits("kroger").day_limit(day) == 20
    assert settings.files.current().warm_up_limit("other", day) is None
    edit(folder, "new", "plain.liquid")
    edit(folder, head + "2026-04-01,kroger,10,5,0\n", "signals.csv")
    clock.now += 5
    assert (settings.account("kroger").templates["plain"], settings.files.current().warm_up_limit("kroger", day)) == (
        "new",
        10,
    )


@pytest.mark.parametrize(
    ("engine", "says"),
    [
        ("channels: [", "not valid YAML"),
        (yaml.safe_dump(any_engine(workspaces={"a": {"paused": "perhaps"}})), "valid boolean"),
        (yaml.safe_dump(any_engine(workspaces={"a": {"templates": {"x": "gone.liquid"}}})), "no such file"),
        (yaml.safe_dump(any_engine(delivery=BRAZE)), "workspaces.*.url"),
        (yaml.safe_dump(any_engine(delivery=BRAZE, workspaces={"*": {**COMMON, "url": "https://u:p@x"}})), "user info"),
        (yaml.safe_dump(any_engine(delivery=BRAZE, workspaces={"*": {**COMMON, "url": "http://0"}})), "nobody has"),
        (yaml.safe_dump(any_engine(workspaces={"b": {"templates": {"x": "broken.liquid"}}})), "broken.liquid:2"),
    ],
    ids=[
        "no YAML",
        "no such value",
        "no such file",
        "an account in use without url",
        "a secret in a url",
        "a url of nobody",
        "a broken template of another retailer",
    ],
)
def test_a_broken_edit_keeps_the_settings_before_it_and_is_told_once(
    tmp_path: Path, engine: str, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    folder = folder_of(tmp_path, {"broken.liquid": "a\n{{ b | shout }}"}, workspaces={"a": {"paused": True}})
    settings = Settings(folder, clock, "/out")
    settings.account("a")
    edit(folder, engine)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            clock.now += 5
            assert settings.workspace("a").paused is True
            edit(folder, engine)
    assert says in " ".join(map(str, settings.problems))
    assert [says in record.getMessage() for record in caplog.records] == [True]
    edit(folder, workspaces={"a": {"paused": False}})
    clock.now += 5
    assert settings.workspace("a").paused is False
    assert settings.problems == []


def test_a_file_that_was_missing_is_found_when_it_comes(tmp_path: Path) -> None:
    clock = Clock()
    folder = folder_of(tmp_path)
    settings = Settings(folder, clock, "/out")
    settings.current()
    edit(folder, workspaces={"a": {"templates": {"plain": "late.liquid"}}})
    clock.now += 5
    assert settings.account("b").templates == {}
    (folder / "late.liquid").write_text("here")
    clock.now += 5
    assert settings.account("a").templates == {"plain": "here"}


def test_without_a_sound_file_at_the_start_everything_wrong_is_raised(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, workspaces={"a": {"templates": {"x": "gone.liquid"}}})
    with pytest.raises(InputError, match=r"gone\.liquid"):
        Settings(folder, Clock()).current()


def test_settings_travel_to_a_worker_and_read_there(tmp_path: Path) -> None:
    settings = Settings(folder_of(tmp_path), time.time, "/out")
    settings.current()
    edit(tmp_path, workspaces={"kroger": {"paused": True}})
    sent = pickle.dumps(settings)
    assert len(sent) < 500
    assert pickle.loads(sent).workspace("kroger").paused is True


def problems_of(folder: Path, *retailers: str) -> list[Problem]:
    config, problems = load_configuration(folder)
    assert config is not None, problems
    return check_delivery(folder, config.engine, retailers, Secrets())


def test_every_missing_url_and_key_is_found_before_the_start(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("KEY_A", "x")
    monkeypatch.setenv("KEY_B", " ")
    folder = folder_of(
        tmp_path,
        delivery=BRAZE,
        workspaces={"a": {**COMMON}, "b": {**COMMON}, "c": {**COMMON, "url": None}, "d": {"url": "https://d.example"}},
    )
    found = {(one.field, one.value): one.fix for one in problems_of(folder, "a", "b", "c", "d", "e", "f")}
    assert set(found) == {
        ("workspaces.b.key_env", "KEY_B"),
        ("workspaces.c.url", ""),
        ("workspaces.c.key_env", "KEY_C"),
        ("workspaces.d.key_env", ""),
        ("workspaces.*.url", ""),
        ("workspaces.*.key_env", ""),
    }
    assert "set the environment variable KEY_B" in found["workspaces.b.key_env", "KEY_B"]


def test_a_broken_edit_of_a_template_leaves_the_last_good_one_in_force(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    workspaces = {"a": {"templates": {"plain": "a.liquid"}}, "b": {"templates": {"plain": "b.liquid"}}}
    folder = folder_of(tmp_path, {"a.liquid": "old a", "b.liquid": "old b"}, workspaces=workspaces)
    settings = Settings(folder, clock, "/out")
    assert settings.account("a").templates["plain"] == "old a"
    edit(folder, "line 1\n{% if name %}", "a.liquid")
    edit(folder, "new b", "b.liquid")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            clock.now += 5
            texts = [settings.account(name).templates["plain"] for name in ("a", "b")]
            assert texts == ["old a", "old b"], "a save is in force as a whole, or not at all"
    (record,) = caplog.records
    assert "the settings before them stay in force" in record.getMessage()
    assert "a.liquid:2  template = {% if name %}" in record.getMessage()
    edit(folder, "new a", "a.liquid")
    clock.now += 5
    assert [settings.account(name).templates["plain"] for name in ("a", "b")] == ["new a", "new b"]


def test_a_broken_edit_of_a_url_leaves_the_last_good_one_in_force(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("KEY_A", "x")
    clock = Clock()
    folder = folder_of(tmp_path, delivery=BRAZE, workspaces={"*": COMMON})
    settings = Settings(folder, clock)
    for url in ("http://169.254.169.254/", "https://rest.example/a b", "https://{retailer}.example:99999", "ftp://x"):
        assert settings.account("a").url == "https://rest.example/a"
        edit(folder, delivery=BRAZE, workspaces={"*": {**COMMON, "url": url}})
        clock.now += 5
        assert settings.account("a").url == "https://rest.example/a"
        (problem,) = settings.problems
        assert (problem.file, problem.field, problem.value) == ("engine.yaml", "workspaces.*.url", url)
        assert problem.line is not None
        edit(folder, delivery=BRAZE, workspaces={"*": COMMON})
        clock.now += 5


def test_a_retailer_of_an_event_makes_no_url_of_a_metadata_service(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("KEY", "x")
    common = {"url": "http://{retailer}/", "key_env": "KEY", "shared_account": "all"}
    settings = Settings(folder_of(tmp_path, delivery=BRAZE, workspaces={"*": common}), Clock())
    assert settings.account("rest.example").url == "http://rest.example/"
    for name in ("169.254.169.254", "2852039166", "metadata.google.internal", "a b", "..", "u:p@h"):
        with pytest.raises(InputError, match=r"workspaces\.\*\.url"):
            settings.account(name)


def test_an_edit_that_gives_two_retailers_one_account_is_not_in_force(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("KEY_A", "1")
    monkeypatch.setenv("KEY_B", "2")
    clock = Clock()
    folder = folder_of(tmp_path, delivery=BRAZE, workspaces={"*": COMMON})
    settings = Settings(folder, clock)
    before = [settings.account(name).key for name in ("a", "b")]
    edit(folder, delivery=BRAZE, workspaces={"*": COMMON, "b": {"key_env": "KEY_A"}})
    clock.now += 5
    assert [settings.account(name).key for name in ("a", "b")] == before
    assert "is the account of a and of b" in settings.problems[0].fix
    edit(folder, delivery=BRAZE, workspaces={"*": {**COMMON, "shared_account": "us"}, "b": {"key_env": "KEY_A"}})
    clock.now += 5
    assert [settings.account(name).key for name in ("a", "b")] == ["1", "1"]


def test_two_that_share_an_account_already_keep_no_other_edit_from_being_in_force(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("KEY_A_B", "1")
    clock = Clock()
    folder = folder_of(tmp_path, delivery=BRAZE, workspaces={"*": COMMON})
    settings = Settings(folder, clock)
    assert [settings.account(name).key for name in ("a-b", "a_b")] == ["1", "1"]
    edit(folder, delivery=BRAZE, workspaces={"*": {**COMMON, "paused": True}})
    clock.now += 5
    assert settings.workspace("a-b").paused is True
    assert settings.problems == []


def test_a_lease_that_is_left_out_fits_the_timeout(tmp_path: Path) -> None:
    for seconds in (1, 10, 30, 300):
        delivery = Delivery.model_validate({"timeout": f"PT{seconds}S"})
        assert delivery.lease.total_seconds() == seconds + 20
    for lease, timeout in (("PT30S", "PT30S"), ("PT30S", "PT29.5S"), ("PT5S", "PT10S")):
        with pytest.raises(ValueError, match=r"1 s more than `timeout`.*leave `lease` out"):
            Delivery.model_validate({"lease": lease, "timeout": timeout})
    assert Delivery.model_validate({"lease": "PT31S", "timeout": "PT30S"}).lease.total_seconds() == 31


def test_two_retailers_never_share_a_key_by_accident(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("KEY_A_B", "x")
    folder = folder_of(tmp_path, delivery=BRAZE, workspaces={"*": COMMON})
    assert ["a-b and of a_b" in one.fix for one in problems_of(folder, "a-b", "a_b")] == [True]
    fixed = {**COMMON, "key_env": "KEY_A_B"}
    folder = folder_of(tmp_path, delivery=BRAZE, workspaces={"*": fixed})
    assert ["a and of b" in one.fix for one in problems_of(folder, "a", "b")] == [True]
    folder = folder_of(tmp_path, delivery=BRAZE, workspaces={"*": {**fixed, "shared_account": "us"}})
    assert problems_of(folder, "a", "b") == []


def test_mistakes_in_the_signals_are_found_before_the_start(tmp_path: Path) -> None:
    warm_up = {"started": "2026-04-01", "signals": "signals.csv"}
    folder = folder_of(tmp_path, {"signals.csv": "date\n"}, workspaces={"a": {"pace": {"warm_up": warm_up}}})
    missing = {(one.file, one.field, one.value) for one in problems_of(folder)}
    assert missing == {("signals.csv", name, "missing") for name in ("retailer_id", "sent", "bounced", "complained")}


def test_an_edit_that_a_running_job_cannot_apply_is_logged_once_by_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock, start = Clock(), {"wait": "PT2S", "remember": "P7D"}
    folder = folder_of(tmp_path, delivery=start)
    settings = Settings(folder, clock)
    assert settings.delivery().wait.total_seconds() == 2

    def edited(**delivery: Any) -> list[str]:
        edit(folder, delivery={**start, **delivery})
        caplog.clear()
        for _ in range(3):
            clock.now += 5
            assert settings.delivery().wait.total_seconds() == 2
        return [record.getMessage().partition(": ")[2] for record in caplog.records]

    assert edited(wait="PT9S") == ["the edit of delivery.wait takes effect at the next start"]
    assert edited(wait="PT9S", timeout="PT3S") == []  # nothing new of what waits
    assert settings.delivery().timeout.total_seconds() == 3
    assert edited(wait="PT9S", remember="P1D", vendor="webhook") == [
        "the edit of delivery.vendor, delivery.wait, delivery.remember takes effect at the next start"
    ]
    assert settings.delivery().vendor == "outbox"
    assert edited() == []
    assert Settings(folder, clock).delivery().remember.days == 7
