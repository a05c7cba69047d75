"""`campaigns validate`: all mistakes at once, before anything runs, and without any key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.csv as pc
import pytest
from support.factories import any_customer_file, any_customers, any_engine, any_folder

from runners.cli.main import main
from schemas.campaigns.engine import EngineConfig

COMMON = {"url": "https://rest.example", "key_env": "BK_{retailer}"}


def folder_of(root: Path, files: dict[str, str] | None = None, **engine: Any) -> Path:
    """A campaigns' folder with a vendor."""
    folder = any_folder(root / "campaigns", engine=any_engine(**{"delivery": {"vendor": "braze"}, **engine}))
    for name, text in (files or {}).items():
        (folder / name).write_text(text)
    return folder


def test_urls_accounts_and_templates_are_told_together_with_their_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspaces = {
        "*": {
            "url": "http://metadata.google.internal/",
            "key_env": "BK_{retailer}",
            "templates": {"plain": "p.liquid"},
        },
        "kroger-2": {"url": "https://u:geheim@rest.example"},
        "kroger_2": {"url": "https://rest.example:0"},
        "aldi": {"templates": {"plain": "q.liquid"}},
    }
    broken = "fine\n{{ a | shout }}\n{{ b | append }}\n{% for i in (1..99999) %}{% endfor %}"
    folder = folder_of(tmp_path, {"p.liquid": broken, "q.liquid": "\n\n{% if a %}"}, workspaces=workspaces)
    assert main(["validate", "--campaigns", str(folder)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("8 mistakes in the input")
    for says in (
        "workspaces.*.url = http://metadata.google.internal/\n    is a cloud's metadata service",
        "workspaces.kroger-2.url = https://…@rest.example\n    has user information",
        "workspaces.kroger_2.url = https://rest.example:0\n    has no port",
        "key_env = BK_KROGER_2\n    is the account of kroger-2 and of kroger_2",
        "p.liquid:2  template = {{ a | shout }}\n    column 8: unknown filter 'shout'",
        "p.liquid:3  template = {{ b | append }}\n    column 8: the filter append missing",
        "p.liquid:4  template = {% for i in (1..99999) %}{% endfor %}\n    column 13: a range of more than 10,000",
        "q.liquid:3  template = {% if a %}\n",
    ):
        assert says in error
    assert "geheim" not in error
    assert sum(line.startswith("engine.yaml:") for line in error.splitlines()) == 3


def test_a_workspace_that_names_no_url_or_key_is_told_without_looking_at_keys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(tmp_path, workspaces={"aldi": {"url": "https://rest.example"}, "lidl": {"key_env": "BK_LIDL"}})
    assert main(["validate", "--campaigns", str(folder)]) == 2
    error = capsys.readouterr().err
    assert "workspaces.aldi.key_env = \n    is missing" in error
    assert "workspaces.lidl.url = \n    is missing" in error
    assert "set the environment variable" not in error


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_the_customers_retailers_are_checked_beforehand(
    tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["kroger-2", "kroger_2", "Kroger.2", "克罗格", "沃尔玛", "aldi", None]
    customers = tmp_path / f"customers.{form}"
    if form == "csv":
        pc.write_csv(any_customers(7, retailer_id=names), customers)
    else:
        any_customer_file(customers, 7, retailer_id=names)
    folder = folder_of(tmp_path, workspaces={"*": COMMON})
    arguments = ["validate", "--campaigns", str(folder), "--customers", str(customers)]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("3 mistakes in the input")
    assert "BK_KROGER_2\n    is the account of Kroger.2 and of kroger-2" in error
    assert "BK_KROGER_2\n    is the account of Kroger.2 and of kroger_2" in error
    assert "BK____\n    is the account of 克罗格 and of 沃尔玛" in error
    folder_of(tmp_path, workspaces={"*": {**COMMON, "shared_account": "all"}})
    assert main(arguments) == 0
    assert "retailers are sound" in capsys.readouterr().out


def test_a_customers_retailer_without_a_workspace_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    customers = tmp_path / "customers.parquet"
    any_customer_file(customers, 2, retailer_id=["aldi", "lidl"])
    folder = folder_of(tmp_path, workspaces={"aldi": COMMON})
    assert main(["validate", "--campaigns", str(folder), "--customers", str(customers)]) == 2
    assert "the address of lidl's workspace" in capsys.readouterr().err


def test_without_a_vendor_no_accounts_are_needed(tmp_path: Path) -> None:
    customers = tmp_path / "customers.parquet"
    any_customer_file(customers, 2, retailer_id=["a-b", "a_b"])
    folder = folder_of(tmp_path, delivery={})
    assert main(["validate", "--campaigns", str(folder), "--customers", str(customers)]) == 0


def test_mistakes_of_the_workspaces_are_told_beside_those_of_all_campaigns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(
        tmp_path, {"p.liquid": "{{ a | shout }}"}, workspaces={"*": {**COMMON, "templates": {"p": "p.liquid"}}}
    )
    (folder / "welcome.yaml").write_text("id: welcome\nsurface: shop\n")
    assert main(["validate", "--campaigns", str(folder)]) == 2
    error = capsys.readouterr().err
    assert "p.liquid:1" in error
    assert "welcome.yaml:2" in error


def test_the_schema_for_editors_knows_shared_accounts() -> None:
    workspace = EngineConfig.model_json_schema()["$defs"]["Workspace"]["properties"]
    assert "shared_account" in workspace
