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
from urllib.parse import quote

from schemas.configuration import Configuration, load_engine, workspace_files
from schemas.delivery import Account
from schemas.engine import Engine
from schemas.problems import InputError, Problem
from schemas.workspaces import Delivery, Workspace, key_variable
from stores.remote_folder import RemoteFolder, is_remote
from stores.secrets import Secrets
from stores.transports import TransportError
from transforms.pacing.limiter import Terms
from transforms.pacing.warm_up import Signal, day_limit, read_signals

LOOK_EVERY_S = 5.0
LOOK_AFAR_EVERY_S = 30.0
_FILE = "engine.yaml"
_log = logging.getLogger(__name__)
_Stamp = tuple[tuple[str, int, int], ...]


@dataclass
class _Loaded:
    """One sound reading: the engine, the templates' texts and the signals by file, and what was made of them."""

    engine: Engine
    templates: dict[str, str]
    signals: dict[str, dict[str, dict[date, Signal]]]
    workspaces: dict[str, Workspace] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)
    limits: dict[tuple[str, date], int | None] = field(default_factory=dict)


class Settings:
    """engine.yaml of a folder, live: looked at every 5 s at most, read again when it or a file it names has changed.
    The folder may be gs://, looked at every 30 s.

    A broken edit changes nothing: the last good settings stay, `problems` says what is wrong with the new ones, and
    it is logged once. Safe to use from several threads; a copy sent to a worker reads for itself. `outbox` is where
    the outbox vendor writes for a workspace without `url`; `secrets` gives the workspaces' keys.
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
        self._watched: set[str] = {_FILE}
        self._stamp: _Stamp = ()

    def __getstate__(self) -> dict[str, Any]:
        kept = ("_remote", "_folder", "_clock", "_outbox", "_secrets")
        return {name: self.__dict__[name] for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def current(self) -> Engine:
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

    def terms(self, retailer: str) -> Terms:
        """What the limiter wants to know of a retailer."""
        loaded = self._current()
        zone = loaded.engine.time_zone(retailer)
        return Terms(_workspace(loaded, retailer), zone, partial(_warm_up_limit, loaded, retailer))

    def _account(self, loaded: _Loaded, retailer: str) -> Account:
        if problems := account_problems(loaded.engine, [retailer], self._secrets):
            raise InputError(problems)
        one = _workspace(loaded, retailer)
        return Account(
            retailer_id=retailer,
            url=filled_url(one.url or self._outbox, retailer),
            key=self._secrets(key_variable(one.key_env, retailer)) if one.key_env else "",
            timeout_s=loaded.engine.delivery.timeout.total_seconds(),
            templates={name: loaded.templates[file] for name, file in one.templates.items()},
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
        except TransportError as error:
            _log.warning("%s The settings that were read stay in force.", error)

    def _stamped(self) -> _Stamp:
        return tuple(_stamp(self._folder, name) for name in sorted(self._watched))

    def _read(self) -> None:
        engine, problems = load_engine(self._folder)
        if engine is not None:
            self._watched = {_FILE, *workspace_files(engine)}
        if engine is not None and not problems:
            loaded, problems = _load(self._folder, engine)
            problems += account_problems(engine, self._loaded.accounts if self._loaded else (), self._secrets)
            self._loaded = self._loaded if problems else loaded
        if problems and problems != self.problems and self._loaded is not None:
            told = "\n".join(map(str, problems))
            _log.warning("%s has mistakes; the settings before them stay in force.\n%s", self._folder / _FILE, told)
        self.problems = problems


def check_delivery(config: Configuration, retailers: Iterable[str], secrets: Secrets | None = None) -> list[Problem]:
    """Everything that would keep these retailers from being sent to: urls, keys, templates, signals.

    Files that are missing are problems of the configuration already.
    """
    unread = [one for one in _load(config.root, config.engine)[1] if (config.root / one.file).is_file()]
    return [*unread, *account_problems(config.engine, retailers, secrets or Secrets())]


def account_problems(engine: Engine, retailers: Iterable[str], secrets: Secrets) -> list[Problem]:
    """A problem for each url and key that is missing, once for all retailers that share the place."""
    if engine.delivery.vendor == "outbox":
        fix = "is no folder; the vendor outbox writes files: give a path or gs://…, or leave url out"
        urls = {name: one.url for name, one in engine.workspaces.items() if one.url}
        return [
            Problem(_FILE, f"workspaces.{name}.url", url, fix)
            for name, url in urls.items()
            if url.startswith(("http://", "https://"))
        ]
    problems: dict[tuple[str, str], Problem] = {}
    owners: dict[str, str] = {}
    for retailer in sorted(set(retailers)):
        one, place = engine.workspace(retailer), f"workspaces.{retailer if retailer in engine.workspaces else '*'}"
        vendor = engine.delivery.vendor
        if not one.url:
            fix = f"is missing; the vendor {vendor} needs the address of {retailer}'s workspace, such as https://HOST"
            problems.setdefault((place, "url"), Problem(_FILE, f"{place}.url", "", fix))
        if not one.key_env:
            fix = f"is missing; name the environment variable that holds {retailer}'s key, such as KEY_{{retailer}}"
            problems.setdefault((place, "key_env"), Problem(_FILE, f"{place}.key_env", "", fix))
            continue
        name = key_variable(one.key_env, retailer)
        field_name = f"{place}.key_env"
        if not secrets(name):
            fix = f"{secrets.todo(name)}: the key of {retailer}'s workspace"
            problems.setdefault((name, "unset"), Problem(_FILE, field_name, name, fix))
        other = owners.setdefault(name, retailer)
        if other != retailer and "{retailer}" in one.key_env:
            fix = f"is the variable of {other} and of {retailer}; give one of them a key_env of its own"
            problems.setdefault((name, retailer), Problem(_FILE, field_name, name, fix))
    return list(problems.values())


def filled_url(url: str, retailer: str) -> str:
    """A url with {retailer} filled in, quoted so that it stays one part of a path whatever the name."""
    name = quote(retailer, safe="")
    return url.replace("{retailer}", name.replace(".", "%2E") if set(name) == {"."} else name)


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


def _load(folder: Path, engine: Engine) -> tuple[_Loaded, list[Problem]]:
    """The engine with the files that its workspaces name, and what is wrong with those."""
    loaded, problems = _Loaded(engine, {}, {}), list[Problem]()
    for workspace in engine.workspaces.values():
        for file in workspace.templates.values():
            loaded.templates[file] = _text(folder, file, problems)
        signals = workspace.pace.warm_up.signals if workspace.pace and workspace.pace.warm_up else None
        if signals and signals not in loaded.signals:
            text = _text(folder, signals, problems)
            loaded.signals[signals], mistakes = read_signals(text, signals) if text else ({}, [])
            problems += mistakes
    return loaded, problems


def _text(folder: Path, name: str, problems: list[Problem]) -> str:
    try:
        return (folder / name).read_text("utf-8")
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
