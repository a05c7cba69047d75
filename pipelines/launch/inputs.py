"""What a launch is given, checked: configuration, snapshot, manifest; and a launch of before, to be asked about."""

from __future__ import annotations

import hashlib
import hmac
import os
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from connectors.gcs import RemoteFolder
from connectors.inputs.histories import check_histories, history_files
from connectors.inputs.lists import list_problems, read_codes
from connectors.inputs.sticky import check_sticky
from connectors.secrets import Secrets
from connectors.uri import sink_uri
from pipelines.launch.options import LaunchConfig, read_uri
from pipelines.launch.remote_inputs import RemoteInputs
from schemas.campaigns.campaign import Campaign
from schemas.campaigns.configuration import Configuration, load_configuration
from schemas.contracts import fingerprint
from schemas.problems import InputError, Problem
from stores.launches.launch_folder import LaunchFolder, differences
from stores.launches.snapshot import Part, Snapshot, parts, take_snapshot
from stores.launches.whole_files import damaged
from transforms.customers.read_customers import batch_name
from transforms.launch_plan import Plan, id_columns, make_plan
from transforms.reconciliation.record_exposures import SCHEMA
from transforms.warnings.history_and_sticky import history_warnings, sticky_warnings
from transforms.warnings.warning import LaunchWarning

MIN_SECRET = 16


@dataclass(frozen=True)
class LaunchJob:
    """A launch that may run: everything was checked and the manifest stands, `fresh` if it was written just now."""

    config: LaunchConfig
    folder: LaunchFolder
    plan: Plan
    snapshot: Snapshot
    parts: list[Part]
    sizes: dict[tuple[str, str], int]
    manifest: dict[str, Any]
    afar: RemoteInputs | None = None
    fresh: bool = False

    @property
    def strict(self) -> bool:
        """Whether warnings are mistakes; a preview publishes nothing and shows them."""
        return (self.config.strict or self.plan.engine.strict) and self.config.only is None

    @property
    def batches(self) -> int:
        """How many batches the whole launch has."""
        return sum(part.batches for part in self.parts)

    @property
    def batch_names(self) -> set[str]:
        """The names of all batches."""
        return {batch_name(part.number, n) for part in self.parts for n in range(part.batches)}

    def check_done(self) -> None:
        """Raises InputError when the file of a finished batch is damaged."""
        self.folder.check_exposures(SCHEMA.names, self.batch_names)


def prepare(config: LaunchConfig, folder: LaunchFolder) -> LaunchJob:
    """Check everything, take the snapshot, and write or compare the manifest.

    Raises InputError with every mistake of every file, and with every input that has changed since the
    launch was started.
    """
    configuration, problems = load_configuration(config.campaigns)
    ids = id_columns(configuration) if configuration else set()
    snapshot = _collected(problems, lambda: take_snapshot(config.customers, folder.root, ids))
    if configuration is None:
        _collected(problems, lambda: history_files(config.history))
    else:
        columns = configuration.engine.columns
        named, channels = (columns.retailer, columns.customer), configuration.engine.channels
        sends = _collected(problems, lambda: check_histories(config.history, named, channels))
        problems += list_problems(config.campaigns, configuration.lists)
    assignments = None
    if config.sticky:
        assignments = _collected(problems, lambda: check_sticky(str(config.sticky)))
    before = _collected(problems, folder.read_manifest)
    launched_at = int(time.time() * 1000) if before is None else int(before["launched_at"])
    launch_id = config.launch_id or (before or {}).get("launch_id") or _new_id(launched_at)
    if configuration is None or snapshot is None:
        raise InputError(problems)
    warnings = history_warnings(configuration, config.history, sends or {})
    warnings += sticky_warnings(configuration, config.sticky, assignments)
    if config.only is not None:
        configuration = replace(
            configuration, campaigns=tuple(c for c in configuration.campaigns if c.id == config.only)
        )
    plan, mistakes = make_plan(configuration, snapshot.schema, launch_id, launched_at, config.test)
    problems += mistakes + _secret(plan, config.secrets)
    if problems:
        raise InputError(problems)
    manifest = {
        "launch_id": launch_id,
        "launched_at": launched_at,
        "config": _told(config),
        "inputs": _inputs(config, configuration, snapshot),
        "warnings": [vars(warning) for warning in warnings],
    }
    if before is None:
        folder.keep_configuration(config.campaigns, configuration.files)
    kept = _kept(folder, before, manifest)
    if before is not None and _same_campaigns(folder, kept) is None:
        folder.keep_configuration(config.campaigns, configuration.files)
    cut = parts(snapshot, config.batch_rows)
    plan = _warned(plan, kept)
    return LaunchJob(config, folder, plan, snapshot, cut, _sizes(plan), kept, fresh=kept is manifest)


def _warned(plan: Plan, manifest: Mapping[str, Any]) -> Plan:
    """The plan with the warnings of the manifest: those about files that may be gone when the launch is asked about."""
    return replace(plan, warnings=(*plan.warnings, *(LaunchWarning(**one) for one in manifest.get("warnings", ()))))


def reopen(folder: LaunchFolder) -> LaunchJob:
    """A launch as it was, to be asked about: its own copy of the campaigns, no secret, nothing written.

    Raises InputError when there is none, when a file of it is damaged, and when its customers are gone or no longer
    the same.
    """
    if folder.remote is not None:
        folder.remote.pull()
    manifest, configuration = launched_campaigns(folder)
    try:
        config = _config_of(folder, manifest["config"])
    except (KeyError, TypeError, AttributeError) as error:
        fix = "was written by another version, or changed: restore it, or use the version that launched"
        raise InputError([damaged(folder.manifest, f"its config lacks {error}", fix)]) from error
    for mirror in config.mirrors:
        RemoteFolder(mirror).pull()
    snapshot = take_snapshot(config.customers, folder.root, id_columns(configuration))
    if snapshot.fingerprint != manifest["inputs"].get("customers_fingerprint"):
        fix = "is not what was launched: the customers have changed since, so nothing can be told about them"
        raise InputError([Problem(config.customers, "--customers", snapshot.fingerprint, fix)])
    plan, problems = make_plan(
        configuration, snapshot.schema, manifest["launch_id"], int(manifest["launched_at"]), config.test
    )
    if problems:
        raise InputError(problems)
    plan = _warned(plan, manifest)
    job = LaunchJob(config, folder, plan, snapshot, parts(snapshot, config.batch_rows), _sizes(plan), manifest)
    job.check_done()
    return job


def launched_campaigns(folder: LaunchFolder) -> tuple[dict[str, Any], Configuration]:
    """The manifest of a launch, and the campaigns as they were launched. Raises InputError where there is no launch,
    and where its copy of the campaigns is not theirs any more."""
    manifest = folder.read_manifest()
    if manifest is None:
        fix = "holds no launch (no manifest.json); give the --output of a launch"
        raise InputError([Problem(str(folder.root), "", "", fix)])
    configuration = _same_campaigns(folder, manifest)
    if configuration is None:
        fix = "put the campaigns back as they were and run the launch command again: they are copied here anew"
        what = "not the campaigns that were launched"
        raise InputError([Problem(str(folder.campaigns), "", what, fix), *load_configuration(folder.campaigns)[1]])
    return manifest, configuration


def _same_campaigns(folder: LaunchFolder, manifest: dict[str, Any]) -> Configuration | None:
    """The launch's copy of its campaigns, if it is what was launched."""
    configuration, problems = load_configuration(folder.campaigns)
    if configuration is None or problems:
        return None
    same = _files_hash(folder.campaigns, configuration.files) == manifest["inputs"].get("configuration")
    return configuration if same else None


def _new_id(launched_at: int) -> str:
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(launched_at / 1000))}-{uuid.uuid4().hex[:6]}"


def _kept(folder: LaunchFolder, before: dict[str, Any] | None, manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest on disk; InputError when it is another launch's or the inputs are not the same."""
    if before is None:
        try:
            folder.create_manifest(manifest)
            return manifest
        except FileExistsError:
            before = folder.read_manifest() or {}
    if before["launch_id"] != manifest["launch_id"]:
        fix = f"this folder holds the launch {before['launch_id']}; give that id or another folder"
        raise InputError([Problem("command line", "--launch_id", manifest["launch_id"], fix)])
    if changed := differences(before["inputs"], manifest["inputs"]):
        raise InputError(changed)
    return before


def _collected(problems: list[Problem], read: Any) -> Any:
    try:
        return read()
    except InputError as error:
        problems += error.problems
        return None


def code_secret(name: str, project: str | None = None) -> bytes:
    """The secret of the offer codes, from the environment or from a project's Secret Manager."""
    return (os.environ.get(name, "") or Secrets(project)(name)).encode()


def secret_mark(secret: bytes) -> str | None:
    """What the manifest says of the secret: enough to tell another one, nothing to find it by."""
    return hmac.new(secret, b"campaigns manifest", hashlib.sha256).hexdigest()[:12] if secret else None


def needs_code_secret(campaigns: Iterable[Campaign]) -> bool:
    """Whether there are offers whose codes are derived from the secret."""
    return any(offer.kind == "unique_code" for campaign in campaigns for offer in campaign.offers)


def _secret(plan: Plan, project: str | None) -> list[Problem]:
    needed = needs_code_secret(entry.campaign for entry in plan.campaigns)
    if not needed or len(code_secret(plan.engine.code_secret, project)) >= MIN_SECRET:
        return []
    fix = f"set it to a secret of {MIN_SECRET} characters or more; the unique codes are derived from it"
    return [Problem("environment", plan.engine.code_secret, "missing or too short", fix)]


def _sizes(plan: Plan) -> dict[tuple[str, str], int]:
    """How many customers each limited offer can serve."""
    sizes = {}
    for entry in plan.campaigns:
        for offer in entry.campaign.offers:
            limits = [] if offer.budget is None else [offer.budget]
            if offer.codes is not None:
                limits.append(len(read_codes(Path(plan.root) / offer.codes, offer.codes)))
            if limits:
                sizes[entry.campaign.id, offer.id] = min(limits)
    return sizes


def _told(config: LaunchConfig) -> dict[str, Any]:
    """The options as JSON data, for the commands that ask about the launch later: they need no broker."""
    told = {name: value for name, value in vars(config).items() if name != "kafka"}
    return {**told, "campaigns": str(config.campaigns.resolve()), "events": str(config.events)}


def _config_of(folder: LaunchFolder, told: dict[str, Any]) -> LaunchConfig:
    """The options of the launch in a folder, with the campaigns that it kept."""
    return LaunchConfig(
        **{
            **told,
            "campaigns": folder.campaigns,
            "events": read_uri(sink_uri, told["events"], []),
            "history": tuple(told["history"]),
            "mirrors": tuple(told.get("mirrors", ())),
            "output": str(folder.root),
        }
    )


def _inputs(config: LaunchConfig, configuration: Configuration, snapshot: Snapshot) -> dict[str, Any]:
    """What the launch depends on, by hash. Of the secret only a keyed hash is kept."""
    project = config.secrets if needs_code_secret(configuration.campaigns) else None
    secret = code_secret(configuration.engine.code_secret, project)
    return {
        "campaigns": dict(sorted(configuration.versions.items())),
        "configuration": _files_hash(config.campaigns, configuration.files),
        "customers": config.customers,
        "customers_fingerprint": snapshot.fingerprint,
        "events": str(config.events),
        "schema": fingerprint("campaign_event"),
        "history": [_file_hash(path) for path in history_files(config.history)],
        "sticky": _file_hash(Path(config.sticky)) if config.sticky else None,
        "test": config.test,
        "batch_rows": config.batch_rows,
        "code_secret": secret_mark(secret),
    }


def _files_hash(root: Path, names: Sequence[str]) -> str:
    total = hashlib.sha256()
    for name in names:
        total.update(f"{name}\x00{_file_hash(root / name)}\x00".encode())
    return total.hexdigest()[:12]


def _file_hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]
