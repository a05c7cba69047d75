"""A launch's folder: what stands where, written so that a crash at any moment leaves whole files only.

manifest.json      what was launched; created once, after campaigns/, a copy of the files that it was launched from
exposures/*.parquet  a row a matched customer and campaign; a file's metadata holds its batch's counts.
                   The file is written last: where it stands, its batch is done.
events/*.avro      with file: transport   dead_letters/*.avro   survey/   snapshot/   summary.json  report.html
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

from schemas.problems import LaunchError, Problem
from stores.remote_folder import RemoteFolder, is_remote

COUNTS = b"campaigns.counts"
_DIGITS = {"event_id", "codes"}
"""Columns of hashes, which no compression makes much smaller."""


class LaunchFolder:
    """The paths of one launch, and its writes. Of a folder in Cloud Storage (`remote`) the paths are of its copy."""

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
        """Make the folders. Raises LaunchError when that is not allowed."""
        if self.remote is not None:
            self.remote.own()
        try:
            for folder in (self.root, self.exposures, self.dead_letters, self.survey):
                folder.mkdir(parents=True, exist_ok=True)
            if not os.access(self.root, os.W_OK):
                raise PermissionError(13, "Permission denied")
        except OSError as error:
            raise LaunchError(cannot_write(self.root, error)) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the launch alone; another process that launches into the same folder is refused."""
        with held_alone(self.root / ".lock", f"{self.root} is being launched by another process; wait until it ends"):
            yield

    def read_manifest(self) -> dict[str, Any] | None:
        """The manifest, or None when nothing was launched here."""
        try:
            found: dict[str, Any] = json.loads(self.manifest.read_text())
        except FileNotFoundError:
            return None
        return found

    def read_summary(self) -> dict[str, Any] | None:
        """The summary of a finished launch, or None."""
        try:
            found: dict[str, Any] = json.loads(self.summary.read_text())
        except FileNotFoundError:
            return None
        return found

    def keep_configuration(self, source: Path, names: Iterable[str]) -> None:
        """Copy the campaigns' files, so that the launch can be asked about when they have changed."""
        try:
            shutil.rmtree(self.campaigns, ignore_errors=True)
            for name in names:
                (self.campaigns / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / name, self.campaigns / name)
        except OSError as error:
            raise LaunchError(cannot_write(self.campaigns, error)) from error

    def create_manifest(self, manifest: dict[str, Any]) -> None:
        """Write the manifest, unless there is one: FileExistsError then."""
        temporary = self.manifest.with_suffix(f".{os.getpid()}.tmp")
        _write(temporary, json.dumps(manifest, indent=2).encode())
        try:
            os.link(temporary, self.manifest)
        finally:
            temporary.unlink()

    def withdraw(self) -> None:
        """Take back a launch of which nothing was published: another may be started here."""
        for folder in (self.survey, self.campaigns):
            shutil.rmtree(folder, ignore_errors=True)
        self.manifest.unlink(missing_ok=True)

    def write_json(self, path: Path, data: Any) -> None:
        """Write a file as a whole."""
        replace_file(path, (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode())

    def done(self) -> set[str]:
        """The names of the batches that are finished."""
        return {path.stem for path in self.exposures.glob("*.parquet")}

    def write_exposures(self, name: str, table: pa.Table, counts: dict[str, Any]) -> None:
        """Write a batch's exposures with its counts: the batch is done."""
        metadata = {COUNTS: json.dumps(counts, separators=(",", ":")).encode()}
        write_parquet(self.exposures / f"{name}.parquet", table.replace_schema_metadata(metadata))

    def read_counts(self, name: str) -> dict[str, Any]:
        """The counts of a finished batch."""
        metadata = pq.read_metadata(self.exposures / f"{name}.parquet").metadata
        found: dict[str, Any] = json.loads(metadata[COUNTS])
        return found

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


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write a Parquet file as a whole. Raises LaunchError when the disk refuses."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            repeating = [field.name for field in table.schema if pa.types.is_dictionary(field.type)]
            packed = {field.name: "none" if field.name in _DIGITS else "lz4" for field in table.schema}
            pq.write_table(table, file, compression=packed, write_statistics=False, use_dictionary=repeating)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise LaunchError(cannot_write(path, error)) from error


@contextmanager
def held_alone(path: Path, told: str) -> Iterator[None]:
    """Hold a lock file; the lock ends with the process. Raises LaunchError with `told` while another holds it."""
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LaunchError(told) from error
        yield


def replace_file(path: Path, data: bytes) -> None:
    """Write a file as a whole. Raises LaunchError when the disk refuses."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        _write(temporary, data)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise LaunchError(cannot_write(path, error)) from error


def _write(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def cannot_write(path: Path, error: OSError) -> str:
    """What happened to a file, and what to do."""
    return (
        f"{path} cannot be written: {error.strerror}. Make room or give the permission, then run the same command "
        "again: it goes on where it stopped"
    )


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[Problem]:
    """What has changed in a launch's inputs since its manifest was written."""
    found = []
    for key in sorted({*before, *now}):
        if before.get(key) != now.get(key):
            fix = f"was {before.get(key)!r} when this launch was started; use another launch id for changed inputs"
            found.append(Problem("manifest.json", f"inputs.{key}", repr(now.get(key)), fix))
    return found
