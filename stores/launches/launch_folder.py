"""The folder of a launch. A crash at any moment leaves whole files only.

manifest.json      the inputs of the launch; created once, after campaigns/, the copy of the campaigns
exposures/*.parquet  a row a matched customer and campaign; a file's metadata holds its batch's counts.
                   The file is written last: a batch is done when its file is there.
events/*.avro      with --events file:    dead_letters/*.avro   survey/   snapshot/   summary.json  report.html
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from connectors.files.whole_file import cannot_write, whole_file, write_whole
from connectors.gcs import RemoteFolder, is_remote
from schemas.problems import InputError, JobError, Problem
from stores.launches.whole_files import (
    COUNTS,
    batch_damage,
    check_digest,
    counts_metadata,
    damaged,
    list_parquet,
    read_json,
    with_digest,
)

_AGAIN = "and run the launch command again"
_MANIFEST = (
    "restore it from a backup; without one, launch the same inputs into an empty --output with the same --launch_id "
    "(every event names it): events and codes get the same ids, so nobody is sent twice"
)
SUMMARY = f"delete it {_AGAIN}: it is made again from the batches"
_EXPOSURES = f"delete it {_AGAIN}: the batch is made again, with the same event ids"
_DIGITS = {"event_id", "codes"}
"""Columns of hashes, which no compression makes much smaller."""


class LaunchFolder:
    """Paths, reads and writes of one launch. For a folder in Cloud Storage (`remote`) the paths are of its copy."""

    def __init__(self, root: str | Path) -> None:
        self.remote = RemoteFolder(str(root)) if is_remote(root) else None
        self.root = Path(root) if self.remote is None else self.remote.path
        self.manifest = self.root / "manifest.json"
        self.summary = self.root / "summary.json"
        self.report = self.root / "report.html"
        self.exposures = self.root / "exposures"
        self.dead_letters = self.root / "dead_letters"
        self.survey = self.root / "survey"
        self.sticky = self.root / "sticky.parquet"
        self.campaigns = self.root / "campaigns"

    def prepare(self) -> None:
        """Make the folders. Raises JobError when they cannot be made."""
        if self.remote is not None:
            self.remote.make_folder()
        try:
            for folder in (self.root, self.exposures, self.dead_letters, self.survey):
                if folder.exists() and not folder.is_dir():
                    raise JobError(f"{folder} is a file where a launch needs a folder. Move it away {_AGAIN}")
                folder.mkdir(parents=True, exist_ok=True)
            if not os.access(self.root, os.W_OK):
                raise PermissionError(13, "Permission denied")
        except OSError as error:
            raise cannot_write(self.root, error) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the launch. Raises JobError while another process launches into the same folder."""
        with lock_file(self.root / ".lock", f"{self.root} is being launched by another process; wait until it ends"):
            yield

    def read_manifest(self) -> dict[str, Any] | None:
        """The manifest, or None when nothing was launched here. Raises InputError when it is damaged, or missing
        although a launch has begun."""
        manifest = read_json(self.manifest, _MANIFEST)
        if manifest is None:
            trace = next((path for path in (self.summary, self.survey / "done.json") if path.exists()), None)
            if trace is None and not self.done():
                return None
            raise InputError([Problem(str(self.manifest), "", "missing", f"a launch has begun here: {_MANIFEST}")])
        manifest = check_digest(self.manifest, manifest, _MANIFEST)
        kinds = {"launch_id": str, "launched_at": int, "config": dict, "inputs": dict}
        if wrong := [name for name, kind in kinds.items() if not isinstance(manifest.get(name), kind)]:
            raise InputError([damaged(self.manifest, f"{wrong[0]} is missing", _MANIFEST)])
        return manifest

    def read_summary(self) -> dict[str, Any] | None:
        """The summary of a finished launch, or None. Raises InputError for a damaged one."""
        return read_json(self.summary, SUMMARY)

    def keep_configuration(self, source: Path, names: Iterable[str]) -> None:
        """Copy the files of the campaigns, for the workers and for commands that ask about the launch later."""
        try:
            shutil.rmtree(self.campaigns, ignore_errors=True)
            for name in names:
                (self.campaigns / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / name, self.campaigns / name)
        except OSError as error:
            raise cannot_write(self.campaigns, error) from error

    def create_manifest(self, manifest: dict[str, Any]) -> None:
        """Write the manifest. Raises FileExistsError when there is one."""
        temporary = self.manifest.with_suffix(f".{os.getpid()}.tmp")
        write_whole(temporary, [json.dumps(with_digest(manifest), indent=2).encode()])
        try:
            os.link(temporary, self.manifest)
        finally:
            temporary.unlink()

    def withdraw(self) -> None:
        """Remove a launch that has published nothing: another may start in this folder."""
        for folder in (self.survey, self.campaigns):
            shutil.rmtree(folder, ignore_errors=True)
        self.manifest.unlink(missing_ok=True)

    def write_json(self, path: Path, data: Any) -> None:
        """Write data as JSON, as a whole file."""
        write_whole(path, [(json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode()])

    def done(self) -> set[str]:
        """The names of the finished batches. Raises InputError when they cannot be listed."""
        return set(list_parquet(self.exposures, "put the folder back, or delete it: every batch is then made again"))

    def write_exposures(self, name: str, table: pa.Table, counts: dict[str, Any]) -> None:
        """Write a batch's exposures with its counts: the batch is done."""
        write_parquet(self.exposures / f"{name}.parquet", table.replace_schema_metadata(counts_metadata(counts)))

    def read_counts(self, name: str) -> dict[str, Any]:
        """The counts of a finished batch that `check_exposures` has checked."""
        metadata = pq.read_metadata(self.exposures / f"{name}.parquet").metadata
        counts: dict[str, Any] = json.loads(metadata[COUNTS])
        return counts

    def check_exposures(self, columns: Collection[str], batches: Collection[str] | None = None) -> None:
        """Raises InputError with every file of exposures that is damaged or belongs to none of `batches`."""
        problems = []
        for name in sorted(self.done()):
            path = self.exposures / f"{name}.parquet"
            if batches is not None and name not in batches:
                problems.append(Problem(str(path), "", "no batch of this launch", "move it out of the folder"))
            elif damage := batch_damage(path, columns):
                problems.append(damaged(path, damage, _EXPOSURES))
        if problems:
            raise InputError(problems)

    def open_exposures(self, names: Collection[str]) -> duckdb.DuckDBPyConnection:
        """A connection with the exposures of finished batches as the view `exposures`."""
        con = duckdb.connect(":memory:")
        files = [str(self.exposures / f"{name}.parquet") for name in sorted(names)]
        con.read_parquet(files).create_view("exposures")
        return con

    def count_exposures(self, names: Collection[str]) -> dict[tuple[Any, ...], int]:
        """Customers by (campaign, retailer, variant, assigned_by, outcome, reason)."""
        if not names:
            return {}
        rows = self.open_exposures(names).execute(
            "SELECT campaign_id, retailer_id, variant, assigned_by, outcome, reason, count(*) "
            "FROM exposures GROUP BY ALL"
        )
        return {tuple(row[:-1]): row[-1] for row in rows.fetchall()}

    def count_units(self, names: Collection[str]) -> dict[tuple[str, str], tuple[int, int]]:
        """(units assigned, units with an emitted customer) by (campaign, variant), where a unit is not one customer.
        Forced variants do not count."""
        if not names:
            return {}
        rows = self.open_exposures(names).execute(
            "SELECT campaign_id, variant, count(DISTINCT unit), count(DISTINCT unit) FILTER (outcome = 'emitted') "
            "FROM exposures WHERE unit IS NOT NULL AND variant IS NOT NULL AND assigned_by <> 'forced' GROUP BY ALL"
        )
        return {(campaign, variant): (assigned, emitted) for campaign, variant, assigned, emitted in rows.fetchall()}


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write a Parquet file as a whole. Raises JobError when the disk refuses."""
    with whole_file(path) as file:
        repeating = [field.name for field in table.schema if pa.types.is_dictionary(field.type)]
        packed = {field.name: "none" if field.name in _DIGITS else "lz4" for field in table.schema}
        pq.write_table(table, file, compression=packed, write_statistics=False, use_dictionary=repeating,
                       write_page_checksum=True)  # fmt: skip


@contextmanager
def lock_file(path: Path, refusal: str) -> Iterator[None]:
    """Lock a file until the block or the process ends. Raises JobError with `refusal` while another process has it."""
    try:
        file = open(path, "w")  # noqa: SIM115
    except OSError as error:
        raise JobError(f"{path} cannot be opened: {error.strerror}. Remove it, and run the same again") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise JobError(refusal) from error
        yield


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[Problem]:
    """A problem for each input that has changed since the manifest was written."""
    problems = []
    for key in sorted({*before, *now}):
        if before.get(key) != now.get(key):
            fix = (
                f"was {before.get(key)!r} when this launch was started: put it back to go on with this launch, or give "
                "another --output (and no --launch_id that was used before) for one of its own"
            )
            problems.append(Problem("manifest.json", f"inputs.{key}", repr(now.get(key)), fix))
    return problems
