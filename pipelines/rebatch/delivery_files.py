"""Read and check what a delivery needs of the campaigns' folder: engine.yaml, its templates, its warm-up signals."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from connectors.inputs.signals import read_signal_rows
from connectors.vendors.liquid_parse import check_template
from schemas.campaigns.accounts import Keys, account_problems, sharing_problems, unusable_urls
from schemas.campaigns.engine import EngineConfig
from schemas.campaigns.workspaces import Workspace
from schemas.delivery import Account
from schemas.problems import InputError, Problem, shown
from transforms.pacing.warm_up import COLUMNS, Signal, day_limit, read_signals


@dataclass
class DeliveryFiles:
    """The engine, the templates' texts and the signals by file. What is derived from them is kept beside them."""

    engine: EngineConfig
    templates: dict[str, str]
    signals: dict[str, dict[str, dict[date, Signal]]]
    accounts: dict[str, Account] = field(default_factory=dict)
    _workspaces: dict[str, Workspace] = field(default_factory=dict)
    _limits: dict[tuple[str, date], int | None] = field(default_factory=dict)

    def workspace(self, retailer: str) -> Workspace:
        """A retailer's workspace, what it leaves out taken from `*`."""
        if retailer not in self._workspaces:
            self._workspaces[retailer] = self.engine.workspace(retailer)
        return self._workspaces[retailer]

    def warm_up_limit(self, retailer: str, day: date) -> int | None:
        """The most messages of a retailer on a day of its time zone; None for no limit."""
        pace = self.workspace(retailer).pace
        if pace is None or pace.warm_up is None:
            return None
        if (retailer, day) not in self._limits:
            signals = self.signals[pace.warm_up.signals].get(retailer) if pace.warm_up.signals else None
            self._limits[retailer, day] = day_limit(pace.warm_up, day, signals)
        return self._limits[retailer, day]


def read_delivery_files(folder: Path, engine: EngineConfig) -> tuple[DeliveryFiles, list[Problem]]:
    """The engine with the files that its workspaces name, and what is wrong with those that exist."""
    files, problems = DeliveryFiles(engine, {}, {}), list[Problem]()
    for workspace in engine.workspaces.values():
        for name in workspace.templates.values():
            if name not in files.templates:
                files.templates[name] = _read_text(folder, name, problems)
                problems += _template_problems(name, files.templates[name])
        signals = workspace.pace.warm_up.signals if workspace.pace and workspace.pace.warm_up else None
        if signals and signals not in files.signals:
            files.signals[signals], mistakes = _read_signals(folder, signals)
            problems += mistakes
    return files, problems


def check_delivery(folder: Path, engine: EngineConfig, retailers: Iterable[str], keys: Keys | None) -> list[Problem]:
    """Everything that would keep these retailers from being sent to, or send them to another's workspace: templates,
    signals, urls, accounts; and keys, unless there are none to look at.

    Missing files, and bad urls of workspaces, are problems of the configuration already.
    """
    named = {*engine.workspaces} - {"*"}
    return [
        *read_delivery_files(folder, engine)[1],
        *account_problems(engine, retailers, keys),
        *unusable_urls(engine, {*retailers} - named - {"*"}),
        *sharing_problems(engine, {*named, *retailers}, keys),
    ]


def _read_signals(folder: Path, name: str) -> tuple[dict[str, dict[date, Signal]], list[Problem]]:
    """The signals of a file, and what is wrong with it; a missing file is a problem of the configuration."""
    try:
        rows, line = read_signal_rows(folder / name, name, COLUMNS)
    except InputError as error:
        return {}, error.problems if (folder / name).is_file() else []
    return read_signals(rows, name, line)


def _template_problems(file: str, text: str) -> list[Problem]:
    """A problem for each mistake of a template, with its line and column."""
    lines = text.split("\n")
    return [
        Problem(file, "template", shown(lines[line - 1].strip()), f"column {column}: {words}; correct this line", line)
        for line, column, words in check_template(text)
    ]


def _read_text(folder: Path, name: str, problems: list[Problem]) -> str:
    try:
        return (folder / name).read_text("utf-8")
    except FileNotFoundError:
        return ""  # a problem of the configuration
    except (OSError, UnicodeDecodeError) as error:
        fix = f"cannot be read as UTF-8 text ({error}); put the file into the campaigns' folder, saved as UTF-8"
        problems.append(Problem(name, "", "", fix))
        return ""
