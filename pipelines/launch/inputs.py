"""Read and check the inputs of a launch, or open a launch that was started before."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from connectors.gcs import RemoteFolder
from connectors.inputs.histories import check_histories, history_files
from connectors.inputs.lists import list_problems, read_codes
from connectors.inputs.sticky import check_sticky
from connectors.uri import sink_uri
from pipelines.launch.code_secret import code_secret, needs_code_secret, secret_digest, secret_problems
from pipelines.launch.options import LaunchConfig, read_uri
from pipelines.launch.storage import RemoteInputs
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

T = TypeVar("T")


@dataclass(frozen=True)
class LaunchJob:
    """A launch whose inputs are checked and whose manifest is written.

    `offer_capacity` is how many customers each limited offer can serve, by (campaign, offer). `is_new`: this call wrote
    the manifest. With `remote_inputs` workers download what they read.
    """

    config: LaunchConfig
    folder: LaunchFolder
    plan: Plan
    snapshot: Snapshot
    parts: list[Part]
    offer_capacity: dict[tuple[str, str], int]
    manifest: dict[str, Any]
    is_new: bool = False
    remote_inputs: RemoteInputs | None = None

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


def prepare_launch(config: LaunchConfig, folder: LaunchFolder) -> LaunchJob:
    """Read and check the inputs, take the snapshot, and write the manifest or compare it.

    Raises InputError with every mistake of every file, and with every input that has changed since the launch was
    started.
    """
    configuration, problems = load_configuration(config.campaigns)
    ids = id_columns(configuration) if configuration else set()
    snapshot = _collect(problems, lambda: take_snapshot(config.customers, folder.root, ids))
    warnings = _check_tables(config, configuration, problems)
    stored = _collect(problems, folder.read_manifest)
    launched_at = int(time.time() * 1000) if stored is None else int(stored["launched_at"])
    launch_id = config.launch_id or (stored or {}).get("launch_id") or _new_id(launched_at)
    if configuration is None or snapshot is None:
        raise InputError(problems)
    if config.only is not None:
        campaigns = tuple(campaign for campaign in configuration.campaigns if campaign.id == config.only)
        configuration = replace(configuration, campaigns=campaigns)
    plan, mistakes = make_plan(configuration, snapshot.schema, launch_id, launched_at, config.test)
    problems += mistakes + secret_problems(plan, config.secrets, remote=folder.remote is not None)
    if problems:
        raise InputError(problems)
    manifest = {
        "launch_id": launch_id,
        "launched_at": launched_at,
        "config": _config_to_json(config),
        "inputs": _inputs(config, configuration, snapshot),
        "warnings": [vars(warning) for warning in warnings],
    }
    if stored is None:
        folder.keep_configuration(config.campaigns, configuration.files)
    written = _write_or_compare(folder, stored, manifest)
    if stored is not None and _read_copied_campaigns(folder, written) is None:
        folder.keep_configuration(config.campaigns, configuration.files)
    job = _make_job(config, folder, replace(plan, root=str(folder.campaigns)), snapshot, written)
    return replace(job, is_new=written is manifest)


def _check_tables(
    config: LaunchConfig, configuration: Configuration | None, problems: list[Problem]
) -> list[LaunchWarning]:
    """Check the histories, the lists and the sticky assignments; the warnings about them."""
    sends = assignments = None
    if configuration is None:
        _collect(problems, lambda: history_files(config.history))
    else:
        columns, channels = configuration.engine.columns, configuration.engine.channels
        ids = columns.retailer, columns.customer
        sends = _collect(problems, lambda: check_histories(config.history, ids, channels))
        problems += list_problems(config.campaigns, configuration.lists)
    if config.sticky:
        assignments = _collect(problems, lambda: check_sticky(str(config.sticky)))
    if configuration is None:
        return []
    warnings = history_warnings(configuration, config.history, sends or {})
    return [*warnings, *sticky_warnings(configuration, config.sticky, assignments)]


def _make_job(
    config: LaunchConfig, folder: LaunchFolder, plan: Plan, snapshot: Snapshot, manifest: dict[str, Any]
) -> LaunchJob:
    """The job of a checked launch, with the warnings of its manifest: the files that they are about may be gone."""
    warnings = [LaunchWarning(**warning) for warning in manifest.get("warnings", ())]
    plan = replace(plan, warnings=(*plan.warnings, *warnings))
    capacity = _offer_capacity(plan)
    return LaunchJob(config, folder, plan, snapshot, parts(snapshot, config.batch_rows), capacity, manifest)


def open_launch(folder: LaunchFolder) -> LaunchJob:
    """A launch that was started before, for the commands that ask about it. Needs no secret and writes nothing.

    Raises InputError when there is none, when a file of it is damaged, and when its customers are gone or no longer
    the same.
    """
    if folder.remote is not None:
        folder.remote.pull()
    manifest, configuration = launched_campaigns(folder)
    try:
        config = _config_from_json(folder, manifest["config"])
    except (KeyError, TypeError, AttributeError) as error:
        fix = "was written by another version, or changed: restore it, or use the version that launched"
        raise InputError([damaged(folder.manifest, f"its config lacks {error}", fix)]) from error
    for mirror in config.mirrors:
        RemoteFolder(mirror).pull()
    snapshot = take_snapshot(config.customers, folder.root, id_columns(configuration))
    if snapshot.fingerprint != manifest["inputs"].get("customers_fingerprint"):
        fix = "is not what was launched: the customers have changed since; restore them to ask about this launch"
        raise InputError([Problem(config.customers, "--customers", snapshot.fingerprint, fix)])
    launch_id, launched_at = manifest["launch_id"], int(manifest["launched_at"])
    plan, problems = make_plan(configuration, snapshot.schema, launch_id, launched_at, config.test)
    if problems:
        raise InputError(problems)
    job = _make_job(config, folder, plan, snapshot, manifest)
    job.check_done()
    return job


def launched_campaigns(folder: LaunchFolder) -> tuple[dict[str, Any], Configuration]:
    """The manifest of a launch, and the campaigns as they were launched. Raises InputError where there is no launch,
    and where its copy of the campaigns has changed."""
    manifest = folder.read_manifest()
    if manifest is None:
        fix = "holds no launch (no manifest.json); give the --output of a launch"
        raise InputError([Problem(str(folder.root), "", "", fix)])
    configuration = _read_copied_campaigns(folder, manifest)
    if configuration is None:
        fix = "put the campaigns back as they were and run the launch command again: they are copied here again"
        value = "not the campaigns that were launched"
        raise InputError([Problem(str(folder.campaigns), "", value, fix), *load_configuration(folder.campaigns)[1]])
    return manifest, configuration


def _read_copied_campaigns(folder: LaunchFolder, manifest: dict[str, Any]) -> Configuration | None:
    """The launch's copy of its campaigns; None if it is not what was launched."""
    configuration, problems = load_configuration(folder.campaigns)
    if configuration is None or problems:
        return None
    digest = _files_digest(folder.campaigns, configuration.files)
    return configuration if digest == manifest["inputs"].get("configuration") else None


def _new_id(launched_at: int) -> str:
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(launched_at / 1000))}-{uuid.uuid4().hex[:6]}"


def _write_or_compare(folder: LaunchFolder, stored: dict[str, Any] | None, manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest on disk. Raises InputError when it is another launch's or has other inputs."""
    if stored is None:
        try:
            folder.create_manifest(manifest)
            return manifest
        except FileExistsError:
            stored = folder.read_manifest() or {}
    if stored["launch_id"] != manifest["launch_id"]:
        fix = f"this folder holds the launch {stored['launch_id']}; give that id or another folder"
        raise InputError([Problem("command line", "--launch_id", manifest["launch_id"], fix)])
    if changed := differences(stored["inputs"], manifest["inputs"]):
        raise InputError(changed)
    return stored


def _collect(problems: list[Problem], read: Callable[[], T]) -> T | None:
    """The result of `read`; None when it raises InputError, whose problems are added."""
    try:
        return read()
    except InputError as error:
        problems += error.problems
        return None


def _offer_capacity(plan: Plan) -> dict[tuple[str, str], int]:
    """How many customers each limited offer can serve."""
    capacity = {}
    for entry in plan.campaigns:
        for offer in entry.campaign.offers:
            limits = [] if offer.budget is None else [offer.budget]
            if offer.codes is not None:
                limits.append(len(read_codes(Path(plan.root) / offer.codes, offer.codes)))
            if limits:
                capacity[entry.campaign.id, offer.id] = min(limits)
    return capacity


def _config_to_json(config: LaunchConfig) -> dict[str, Any]:
    """The options as JSON data, for the commands that ask about the launch later. Those need no broker."""
    options = {name: value for name, value in vars(config).items() if name != "kafka"}
    return {**options, "campaigns": str(config.campaigns.resolve()), "events": str(config.events)}


def _config_from_json(folder: LaunchFolder, options: dict[str, Any]) -> LaunchConfig:
    """The options of the launch in a folder, with its copy of the campaigns."""
    return LaunchConfig(
        **{
            **options,
            "campaigns": folder.campaigns,
            "events": read_uri(sink_uri, options["events"], []),
            "history": tuple(options["history"]),
            "mirrors": tuple(options.get("mirrors", ())),
            "output": str(folder.root),
        }
    )


def _inputs(config: LaunchConfig, configuration: Configuration, snapshot: Snapshot) -> dict[str, Any]:
    """The inputs of the launch by their digests. Of the secret only a keyed hash is kept."""
    project = config.secrets if needs_code_secret(configuration.campaigns) else None
    secret = code_secret(configuration.engine.code_secret, project)
    return {
        "campaigns": dict(sorted(configuration.versions.items())),
        "configuration": _files_digest(config.campaigns, configuration.files),
        "customers": config.customers,
        "customers_fingerprint": snapshot.fingerprint,
        "events": str(config.events),
        "schema": fingerprint("campaign_event"),
        "history": [_file_digest(path) for path in history_files(config.history)],
        "sticky": _file_digest(Path(config.sticky)) if config.sticky else None,
        "test": config.test,
        "batch_rows": config.batch_rows,
        "code_secret": secret_digest(secret),
    }


def _files_digest(root: Path, names: Sequence[str]) -> str:
    total = hashlib.sha256()
    for name in names:
        total.update(f"{name}\x00{_file_digest(root / name)}\x00".encode())
    return total.hexdigest()[:12]


def _file_digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]
