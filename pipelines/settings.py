"""The settings of delivery as they are now: engine.yaml, its templates and its signals, read again when they change."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from threading import RLock, Thread
from typing import Any

from connectors.gcs import RemoteFolder, is_remote
from connectors.inputs.signals import read_signal_rows
from connectors.secrets import Secrets
from connectors.vendors.liquid_parse import check_template
from schemas.campaigns.accounts import (
    FILE,
    Keys,
    account_marks,
    account_problems,
    filled_url,
    sharing_problems,
    unusable_urls,
)
from schemas.campaigns.configuration import load_engine, workspace_files
from schemas.campaigns.engine import EngineConfig
from schemas.campaigns.workspaces import Delivery, Workspace, key_variable
from schemas.delivery import Account
from schemas.problems import InputError, JobError, Problem, shown
from transforms.pacing.limiter import WorkspaceLimits
from transforms.pacing.warm_up import COLUMNS, Signal, day_limit, read_signals

LOOK_EVERY_S = 5.0
LOOK_AFAR_EVERY_S = 30.0
AT_START = ("vendor", "wait", "remember")
"""The keys of `delivery` that a running job does not apply: its steps are made of them."""
_log = logging.getLogger(__name__)
_Stamp = tuple[tuple[str, int, int], ...]


@dataclass
class _Loaded:
    """One sound reading: the engine, the templates' texts and the signals by file, and what was made of them."""

    engine: EngineConfig
    templates: dict[str, str]
    signals: dict[str, dict[str, dict[date, Signal]]]
    workspaces: dict[str, Workspace] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)
    limits: dict[tuple[str, date], int | None] = field(default_factory=dict)


class Settings:
    """engine.yaml of a folder, live: looked at every 5 s at most, read again when it or a file it names has changed.
    The folder may be gs://, looked at every 30 s.

    An edit of a key in AT_START is logged once, and waits for the next start. A broken edit changes nothing: the last
    good settings stay, `problems` says what is wrong with the new ones, and it is logged once. Safe to use from several
    threads; a copy sent to a worker reads for itself. `outbox` is where the outbox vendor writes for a workspace
    without `url`; `secrets` gives the workspaces' keys.
    """

    def __init__(
        self,
        folder: str | Path,
        clock: Callable[[], float] = time.time,
        outbox: str = "",
        secrets: Secrets | None = None,
    ) -> None:
        self._remote = RemoteFolder(str(folder)) if is_remote(folder) else None
        self._folder = Path(folder) if self._remote is None else self._remote.path
        self._clock, self._outbox, self._secrets = clock, outbox, secrets or Secrets()
        self._begin()

    def _begin(self) -> None:
        self.problems: list[Problem] = []
        self._lock = RLock()
        self._loaded: _Loaded | None = None
        self._looked_at = self._brought_at = float("-inf")
        self._bringing: Thread | None = None
        self._watched: set[str] = {FILE}
        self._stamp: _Stamp = ()
        self._waiting: dict[str, Any] = {}  # edits for the next start

    def __getstate__(self) -> dict[str, Any]:
        kept = ("_remote", "_folder", "_clock", "_outbox", "_secrets")
        return {name: self.__dict__[name] for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def current(self) -> EngineConfig:
        """engine.yaml as it is now. InputError when there was no sound one yet."""
        return self._current().engine

    def delivery(self) -> Delivery:
        """How events are delivered."""
        return self.current().delivery

    def workspace(self, retailer: str) -> Workspace:
        """A retailer's workspace, what it leaves out taken from `*`."""
        return _workspace(self._current(), retailer)

    def account(self, retailer: str) -> Account:
        """A retailer's account, ready to call. InputError when its url or its key is missing."""
        loaded = self._current()
        if retailer not in loaded.accounts:
            loaded.accounts[retailer] = self._account(loaded, retailer)
        return loaded.accounts[retailer]

    def warm_up_limit(self, retailer: str, day: date) -> int | None:
        """How many messages a retailer may be sent on a day of its time zone; None for no limit."""
        return _warm_up_limit(self._current(), retailer, day)

    def terms(self, retailer: str) -> WorkspaceLimits:
        """What the limiter wants to know of a retailer."""
        loaded = self._current()
        zone = loaded.engine.time_zone(retailer)
        return WorkspaceLimits(_workspace(loaded, retailer), zone, partial(_warm_up_limit, loaded, retailer))

    def _account(self, loaded: _Loaded, retailer: str) -> Account:
        engine = loaded.engine
        if problems := [*account_problems(engine, [retailer], self._secrets), *unusable_urls(engine, [retailer])]:
            raise InputError(problems)
        workspace = _workspace(loaded, retailer)
        variable = key_variable(workspace.key_env, retailer) if workspace.key_env else ""
        url = filled_url(workspace.url or self._outbox, retailer)
        key = self._secrets(variable) if variable else ""
        return Account(
            retailer_id=retailer,
            url=url,
            key=key,
            timeout_s=engine.delivery.timeout.total_seconds(),
            templates={name: loaded.templates[file] for name, file in workspace.templates.items()},
            marks=account_marks(url, variable, key),
            shared_account=workspace.shared_account,
        )

    def _current(self) -> _Loaded:
        now = self._clock()
        with self._lock:
            if self._loaded is not None and 0 <= now - self._looked_at < LOOK_EVERY_S:
                return self._loaded
            self._looked_at = now
            self._bring(now)
            if (stamp := self._stamped()) != self._stamp or self._loaded is None:
                self._read()
                # As of before the reading, so that what changes meanwhile is read next time.
                known = {one[0]: one for one in stamp}
                self._stamp = tuple(known.get(one[0], one) for one in self._stamped())
            if self._loaded is None:
                raise InputError(self.problems)
            return self._loaded

    def _bring(self, now: float) -> None:
        """Brings what has changed in a folder afar, at first at once and then beside: whoever asks does not wait."""
        if self._remote is None or 0 <= now - self._brought_at < LOOK_AFAR_EVERY_S:
            return
        if self._loaded is None:
            self._remote.pull()
        elif self._bringing is None or not self._bringing.is_alive():
            self._bringing = Thread(target=self._bring_again, args=(self._remote,), daemon=True)
            self._bringing.start()
        self._brought_at = now

    @staticmethod
    def _bring_again(remote: RemoteFolder) -> None:
        try:
            remote.pull()
        except JobError as error:
            _log.warning("%s The settings that were read stay in force.", error)

    def _stamped(self) -> _Stamp:
        return tuple(_stamp(self._folder, name) for name in sorted(self._watched))

    def _read(self) -> None:
        engine, problems = load_engine(self._folder)
        if engine is not None:
            self._watched = {FILE, *workspace_files(engine)}
            loaded, more = _load(self._folder, engine)
            problems += [*more, *self._problems_in_use(engine)]
            if not problems:
                loaded.engine = self._as_at_start(engine)
                self._loaded = loaded
        if problems and problems != self.problems and self._loaded is not None:
            told = "\n".join(map(str, problems))
            _log.warning("%s has mistakes; the settings before them stay in force.\n%s", self._folder / FILE, told)
        self.problems = problems

    def _as_at_start(self, engine: EngineConfig) -> EngineConfig:
        """The engine with the values of AT_START that the job runs with; an edit of them is logged."""
        if self._loaded is None:
            return engine
        runs, edited = self._loaded.engine.delivery, engine.delivery
        waiting = {name: getattr(edited, name) for name in AT_START if getattr(edited, name) != getattr(runs, name)}
        if waiting and waiting != self._waiting:
            names = ", ".join(f"delivery.{name}" for name in waiting)
            _log.warning("%s: the edit of %s takes effect at the next start", self._folder / FILE, names)
        self._waiting = waiting
        kept = {name: getattr(runs, name) for name in AT_START}
        return engine.model_copy(update={"delivery": edited.model_copy(update=kept)})

    def _problems_in_use(self, engine: EngineConfig) -> list[Problem]:
        """What new settings would break for the retailers that were sent to here. Those that share an account already
        are no reason against an edit: one of them waits, whatever it says."""
        if self._loaded is None:
            return []
        used, before = list(self._loaded.accounts), self._loaded.engine
        known = {(one.field, one.fix) for one in sharing_problems(before, used, self._secrets)}
        shared = [one for one in sharing_problems(engine, used, self._secrets) if (one.field, one.fix) not in known]
        return [*account_problems(engine, used, self._secrets), *unusable_urls(engine, used), *shared]


def check_delivery(root: Path, engine: EngineConfig, retailers: Iterable[str], keys: Keys | None) -> list[Problem]:
    """Everything that would keep these retailers from being sent to, or send them to another's workspace: templates,
    signals, urls, accounts; and keys, unless there are none to look at.

    Files that are missing, and urls of workspaces, are problems of the configuration already.
    """
    named = {*engine.workspaces} - {"*"}
    return [
        *_load(root, engine)[1],
        *account_problems(engine, retailers, keys),
        *unusable_urls(engine, {*retailers} - named - {"*"}),
        *sharing_problems(engine, {*named, *retailers}, keys),
    ]


def _workspace(loaded: _Loaded, retailer: str) -> Workspace:
    if retailer not in loaded.workspaces:
        loaded.workspaces[retailer] = loaded.engine.workspace(retailer)
    return loaded.workspaces[retailer]


def _warm_up_limit(loaded: _Loaded, retailer: str, day: date) -> int | None:
    pace = _workspace(loaded, retailer).pace
    if pace is None or pace.warm_up is None:
        return None
    if (retailer, day) not in loaded.limits:
        signals = loaded.signals[pace.warm_up.signals].get(retailer) if pace.warm_up.signals else None
        loaded.limits[retailer, day] = day_limit(pace.warm_up, day, signals)
    return loaded.limits[retailer, day]


def _load(folder: Path, engine: EngineConfig) -> tuple[_Loaded, list[Problem]]:
    """The engine with the files that its workspaces name, and what is wrong with those that are there."""
    loaded, problems = _Loaded(engine, {}, {}), list[Problem]()
    for workspace in engine.workspaces.values():
        for file in workspace.templates.values():
            if file not in loaded.templates:
                loaded.templates[file] = _text(folder, file, problems)
                problems += _template_problems(file, loaded.templates[file])
        signals = workspace.pace.warm_up.signals if workspace.pace and workspace.pace.warm_up else None
        if signals and signals not in loaded.signals:
            loaded.signals[signals], mistakes = _signals(folder, signals)
            problems += mistakes
    return loaded, problems


def _signals(folder: Path, name: str) -> tuple[dict[str, dict[date, Signal]], list[Problem]]:
    """The signals of a file, and what is wrong with it; a file that is not there is a problem of the configuration."""
    try:
        rows, line = read_signal_rows(folder / name, name, COLUMNS)
    except InputError as error:
        return {}, error.problems if (folder / name).is_file() else []
    return read_signals(rows, name, line)


def _template_problems(file: str, text: str) -> list[Problem]:
    """A problem for each mistake of a template, with its line."""
    lines = text.split("\n")
    return [
        Problem(file, "template", shown(lines[line - 1].strip()), f"{words}; correct this line", line)
        for line, words in check_template(text)
    ]


def _text(folder: Path, name: str, problems: list[Problem]) -> str:
    try:
        return (folder / name).read_text("utf-8")
    except FileNotFoundError:
        return ""  # a problem of the configuration
    except (OSError, UnicodeDecodeError) as error:
        fix = f"cannot be read as UTF-8 text ({error}); put the file into the campaigns' folder, saved as UTF-8"
        problems.append(Problem(name, "", "", fix))
        return ""


def _stamp(folder: Path, name: str) -> tuple[str, int, int]:
    try:
        found = os.stat(folder / name)
    except OSError:
        return name, 0, -1
    return name, found.st_mtime_ns, found.st_size
