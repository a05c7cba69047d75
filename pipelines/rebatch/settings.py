"""The settings of a delivery as they are now: engine.yaml, its templates and signals, read again when they change."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from connectors.gcs import RemoteFolder, is_remote
from connectors.secrets import Secrets
from pipelines.rebatch.delivery_files import DeliveryFiles, check_delivery, read_delivery_files
from pipelines.rebatch.options import RebatchConfig
from schemas.campaigns.accounts import (
    FILE,
    account_digests,
    account_problems,
    configured_retailers,
    filled_url,
    sharing_problems,
    unusable_urls,
)
from schemas.campaigns.configuration import load_configuration, load_engine, workspace_files
from schemas.campaigns.engine import EngineConfig
from schemas.campaigns.workspaces import Delivery, Workspace, key_variable
from schemas.delivery import Account
from schemas.problems import InputError, Problem
from stores.deliveries.delivery_folder import DeliveryFolder
from stores.live_config.live_files import LiveFiles, Reading
from transforms.pacing.limiter import WorkspaceLimits

AT_START = ("vendor", "wait", "remember")
"""The keys of `delivery` that a running job does not apply: its steps are made of them."""
_log = logging.getLogger(__name__)


class Settings:
    """engine.yaml of a folder, live (stores/live_config/live_files.py).

    An edit of a key in AT_START is logged once and waits for the next start. An edit that would break the delivery for
    a retailer already in use is refused. A copy sent to a worker reads for itself. `outbox` is where the outbox vendor
    writes for a workspace without `url`; `secrets` gives the workspaces' keys.
    """

    def __init__(
        self,
        folder: str | Path,
        clock: Callable[[], float] = time.time,
        outbox: str = "",
        secrets: Secrets | None = None,
    ) -> None:
        self.__setstate__((folder, clock, outbox, secrets or Secrets()))

    def __getstate__(self) -> tuple[Any, ...]:
        return self._folder, self._clock, self._outbox, self._secrets

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._folder, self._clock, self._outbox, self._secrets = state
        self.files = LiveFiles(self._folder, FILE, self._read, self._clock)
        self._waiting: dict[str, Any] = {}  # edits for the next start

    @property
    def problems(self) -> list[Problem]:
        """What is wrong with the last edit, which is not in force then."""
        return self.files.problems

    def current(self) -> EngineConfig:
        """engine.yaml as it is now. Raises InputError when there was no sound one yet."""
        return self.files.current().engine

    def delivery(self) -> Delivery:
        """How events are delivered."""
        return self.current().delivery

    def workspace(self, retailer: str) -> Workspace:
        """A retailer's workspace, what it leaves out taken from `*`."""
        return self.files.current().workspace(retailer)

    def account(self, retailer: str) -> Account:
        """A retailer's account, ready to call. Raises InputError when its url or its key is missing."""
        files = self.files.current()
        if retailer not in files.accounts:
            files.accounts[retailer] = self._account(files, retailer)
        return files.accounts[retailer]

    def limits(self, retailer: str) -> WorkspaceLimits:
        """The limits that a retailer's calls keep to."""
        files = self.files.current()
        zone = files.engine.time_zone(retailer)
        return WorkspaceLimits(files.workspace(retailer), zone, partial(files.warm_up_limit, retailer))

    def _account(self, files: DeliveryFiles, retailer: str) -> Account:
        engine = files.engine
        if problems := [*account_problems(engine, [retailer], self._secrets), *unusable_urls(engine, [retailer])]:
            raise InputError(problems)
        workspace = files.workspace(retailer)
        variable = key_variable(workspace.key_env, retailer) if workspace.key_env else ""
        url = filled_url(workspace.url or self._outbox, retailer)
        key = self._secrets(variable) if variable else ""
        return Account(
            retailer_id=retailer,
            url=url,
            key=key,
            timeout_s=engine.delivery.timeout.total_seconds(),
            templates={name: files.templates[file] for name, file in workspace.templates.items()},
            digests=account_digests(url, variable, key),
            shared_account=workspace.shared_account,
        )

    def _read(self, folder: Path, last: DeliveryFiles | None) -> Reading[DeliveryFiles]:
        engine, problems = load_engine(folder)
        if engine is None:
            return Reading(None, problems, None)
        files, mistakes = read_delivery_files(folder, engine)
        problems += mistakes
        if last is not None:
            problems += self._problems_in_use(engine, last)
            if not problems:
                files.engine = self._keep_at_start(engine, last.engine, folder / FILE)
        return Reading(files, problems, {FILE, *workspace_files(engine)})

    def _keep_at_start(self, edited: EngineConfig, running: EngineConfig, path: Path) -> EngineConfig:
        """The edited engine with the AT_START values that the job runs with; an edit of them is logged."""
        kept = {name: getattr(running.delivery, name) for name in AT_START}
        new = {name: getattr(edited.delivery, name) for name in AT_START}
        waiting = {name: value for name, value in new.items() if value != kept[name]}
        if waiting and waiting != self._waiting:
            names = ", ".join(f"delivery.{name}" for name in waiting)
            _log.warning("%s: the edit of %s takes effect at the next start", path, names)
        self._waiting = waiting
        return edited.model_copy(update={"delivery": edited.delivery.model_copy(update=kept)})

    def _problems_in_use(self, engine: EngineConfig, last: DeliveryFiles) -> list[Problem]:
        """What an edit would break for the retailers that were sent to from here. Retailers that share an account
        already do not prevent an edit: one of them waits in any case."""
        used = list(last.accounts)
        known = {(problem.field, problem.fix) for problem in sharing_problems(last.engine, used, self._secrets)}
        shared = [
            problem
            for problem in sharing_problems(engine, used, self._secrets)
            if (problem.field, problem.fix) not in known
        ]
        return [*account_problems(engine, used, self._secrets), *unusable_urls(engine, used), *shared]


def make_settings(config: RebatchConfig) -> Settings:
    """The live settings of the campaigns' folder."""
    outbox = f"{DeliveryFolder(config.output).outbox}/{{retailer}}"
    return Settings(config.campaigns, outbox=outbox, secrets=Secrets(config.secrets))


def check_inputs(config: RebatchConfig, secrets: Secrets) -> bool:
    """Checks the campaigns' folder and the workspaces' keys; whether the vendor needs keys. Raises InputError with
    every mistake."""
    root = RemoteFolder(config.campaigns).pull() if is_remote(config.campaigns) else Path(config.campaigns)
    loaded, problems = load_configuration(root)
    if loaded is not None:
        problems += check_delivery(root, loaded.engine, configured_retailers(loaded.engine), secrets)
    if problems or loaded is None:
        raise InputError(problems)
    return loaded.engine.delivery.vendor != "outbox"
