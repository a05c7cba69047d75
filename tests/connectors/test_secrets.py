"""Secrets from the environment and from Secret Manager, here a server that speaks its call."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest
from support.secret_manager import PROJECT, secret_manager

from connectors import secrets
from connectors.secrets import Secrets
from schemas.problems import JobError


@pytest.fixture
def manager() -> Iterator[dict[str, str]]:
    with secret_manager() as held:
        yield held


def test_the_environment_comes_first_then_the_projects_secret(
    manager: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    manager.update(KEY_A="of the project\n", KEY_B="of the project")
    monkeypatch.setenv("KEY_B", " of the environment ")
    read = Secrets(PROJECT)
    assert [read("KEY_A"), read("KEY_B"), read("KEY_C")] == ["of the project", "of the environment", ""]
    assert Secrets()("KEY_A") == ""
    assert Secrets(PROJECT, environment=False)("KEY_B") == "of the project"


def test_a_secret_is_asked_for_again_after_a_while(manager: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    manager["KEY_A"] = "first"
    read = Secrets(PROJECT)
    assert read("KEY_A") == "first"
    manager["KEY_A"] = "second"
    assert read("KEY_A") == "first"
    monkeypatch.setattr(secrets, "KEEP_S", 0.0)
    assert read("KEY_A") == "second"


def test_a_refusal_says_which_role_is_missing(manager: dict[str, str]) -> None:
    manager["KEY_A"] = "denied"
    with pytest.raises(JobError, match=r"KEY_A/versions/latest cannot be read .*Secret Accessor"):
        Secrets(PROJECT)("KEY_A")


def test_what_is_sent_to_workers_and_what_is_shown_hold_no_value(manager: dict[str, str]) -> None:
    manager["KEY_A"] = "do-not-tell"
    read = Secrets(PROJECT)
    assert read("KEY_A") == "do-not-tell"
    assert b"do-not-tell" not in pickle.dumps(read)
    assert "do-not-tell" not in repr(read)
