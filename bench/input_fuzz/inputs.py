"""One whole input of the command line: campaigns, lists, customers, options, and what is known about it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bench.input_fuzz.tables import Table, encode

Files = dict[str, bytes]
HUGE_NUMBER = "HUGENUMBER"
"""Stands in YAML for a number of 5,000 digits, which Python does not write."""
SECRET = "a secret of the fuzzer only"


@dataclass
class Facts:
    """What must hold of a run that ends with 0. None or empty where nothing is known.

    `rows`: of the customers' source. `customers`: (id, retailer) as text. `never`: ids that no campaign may write to;
    `never_of`: those of one campaign. `codes`: of an offer, (campaign, offer) to the codes of its list.
    """

    rows: int | None = None
    customers: set[tuple[str, str]] | None = None
    never: set[str] = field(default_factory=set)
    never_of: dict[str, set[str]] = field(default_factory=dict)
    codes: dict[tuple[str, str], set[str]] = field(default_factory=dict)


@dataclass
class Inputs:
    """A folder of inputs and the commands that are run in it, one after the other.

    `edits` change the written files; `damage` changes the folder before the last commands. `bad`: what is wrong, by
    name; `must`: the exit code that is certain, if one is. `machine`: exit code 1 may come, what is wrong is no input.
    """

    engine: dict[str, Any]
    campaigns: dict[str, dict[str, Any]]
    table: Table
    audiences: dict[str, Any] = field(default_factory=dict)
    lists: dict[str, bytes] = field(default_factory=dict)
    options: dict[str, list[str]] = field(default_factory=dict)
    more: list[str] = field(default_factory=list)
    other: Files = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)
    edits: list[Callable[[Files], None]] = field(default_factory=list)
    damage: list[Callable[[Path], None]] = field(default_factory=list)
    facts: Facts = field(default_factory=Facts)
    outputs: set[str] = field(default_factory=lambda: {"out", "events"})
    bad: list[str] = field(default_factory=list)
    must: int | None = 0
    machine: bool = False

    def file_names(self) -> list[str]:
        """The YAML files, as paths in the folder of the campaigns."""
        return [
            "engine.yaml",
            *(f"{name}.yaml" for name in self.campaigns),
            *(f"audiences/{n}.yaml" for n in self.audiences),
        ]

    def document(self, name: str) -> Any:
        """The data of a YAML file."""
        if name == "engine.yaml":
            return self.engine
        return self.audiences[Path(name).stem] if name.startswith("audiences/") else self.campaigns[Path(name).stem]

    def files(self) -> Files:
        """Every file by its path in the folder."""
        files = {f"campaigns/{name}": yaml_bytes(self.document(name)) for name in self.file_names()}
        files |= {f"campaigns/{name}": data for name, data in self.lists.items()} | self.other
        files |= encode(self.table)
        for edit in self.edits:
            edit(files)
        return files

    def command_lines(self) -> list[list[str]]:
        """The arguments of each command; one that stands after the damage comes last."""
        return [self._command(name) for name in self.commands]

    def _command(self, name: str) -> list[str]:
        given = [f"{option}={value}" for option, values in self.options.items() for value in values]
        campaign = next(iter(self.campaigns), "none")
        customer, _ = min(self.facts.customers or {("c-1", "")})
        of = [one for one in given if one.startswith(("--campaigns", "--customers"))]
        earlier = [one for one in given if one.startswith(("--history", "--sticky"))]
        output = (self.options.get("--output") or ["out"])[0]
        return {
            "launch": ["launch", *given, *self.more],
            "validate": ["validate", *of, *self.more],
            "preview": ["preview", "--samples=1", *of, *earlier, *self.more, "--", campaign],
            "schema": ["schema", *self.more, "--", (self.options.get("--customers") or [""])[0]],
            "check": ["check", "--", output],
            "report": ["report", "--", output],
            "why": ["why", f"--launch={output}", "--", customer, campaign],
            "verify-code": [
                "verify-code",
                f"--launch={output}",
                f"--offer={self._offer(campaign)}",
                "--",
                "2H8DV-WGDCY-SQ4A0",
            ],
        }[name]

    def _offer(self, campaign: str) -> str:
        offers = self.campaigns.get(campaign, {}).get("offers") or [{}]
        first = offers[0] if isinstance(offers, list) and isinstance(offers[0], dict) else {}
        return str(first.get("id", "none"))[:50]


def yaml_bytes(data: Any) -> bytes:
    """A YAML file."""
    text = yaml.safe_dump(data, allow_unicode=True, sort_keys=False)
    return text.replace(HUGE_NUMBER, "9" * 5_000).encode("utf-8", "surrogatepass")


def described(inputs: Inputs) -> str:
    """The commands and what is wrong, as JSON for a person who runs them again."""
    return json.dumps({"bad": inputs.bad, "must": inputs.must, "commands": inputs.command_lines()}, indent=1)
