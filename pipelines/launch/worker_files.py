"""WorkerFiles: the readers and writers that the steps of a launch call on their workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from connectors.inputs.histories import read_histories
from connectors.inputs.lists import read_codes, read_list
from connectors.inputs.sticky import read_sticky
from pipelines.launch.code_secret import code_secret, secret_digest
from pipelines.launch.inputs import LaunchJob
from pipelines.launch.storage import RemoteInputs, after_download, read_downloaded_part
from schemas.contracts import DeadLetter
from schemas.elements import Ints
from schemas.problems import JobError
from stores.dead_letters import write_dead_letters
from stores.launches import survey_results
from stores.launches.launch_folder import LaunchFolder
from stores.launches.snapshot import Part, read_part
from transforms.offers.generate_offers import Allocations
from transforms.suppression.suppress import Superseded


@dataclass(frozen=True)
class WorkerFiles:
    """What the steps of a launch read and write. It travels with the job, and holds no secret.

    `columns` are the customers' columns that are read, `ids` the columns of the retailer and the customer. `secrets`
    names where the secret `code_secret` is kept, `secret_digest` is the manifest's. With `remote` a worker downloads
    the inputs before the first is read, and uploads what it writes.
    """

    output: str
    campaigns: Path
    columns: tuple[str, ...] = ()
    ids: tuple[str, str] = ("", "")
    history: tuple[str, ...] = ()
    sticky: str | None = None
    code_secret: str = ""
    secrets: str | None = None
    secret_digest: str | None = None
    remote: RemoteInputs | None = None

    @classmethod
    def of(cls, job: LaunchJob) -> WorkerFiles:
        """The files of a launch."""
        plan, config = job.plan, job.config
        return cls(
            output=str(job.folder.root) if job.folder.remote is None else job.folder.remote.uri,
            campaigns=Path(plan.root),
            columns=plan.columns,
            ids=(plan.engine.columns.retailer, plan.engine.columns.customer),
            history=config.history,
            sticky=config.sticky,
            code_secret=plan.engine.code_secret,
            secrets=config.secrets,
            secret_digest=job.manifest["inputs"].get("code_secret"),
            remote=job.remote_inputs,
        )

    def read_part(self, part: Part) -> Iterator[pa.RecordBatch]:
        """The batches of a part of the snapshot."""
        if self.remote is not None:
            return read_downloaded_part(self.remote, part, self.columns)
        return read_part(part, self.columns)

    def read_list(self, file: str, column: str) -> pa.Array:
        """The ids of a list file for a column of the customers."""
        return self._read(read_list, self.campaigns / file, column, file)

    def read_codes(self, file: str) -> pa.Array:
        """The codes of a code list."""
        return self._read(read_codes, self.campaigns / file, file)

    def read_sticky(self) -> pa.Table | None:
        """The assignments of earlier launches, None without --sticky."""
        return None if self.sticky is None else self._read(read_sticky, self.sticky)

    def read_sends(self) -> Iterator[pa.Table]:
        """The sends of earlier launches, a table for each file of --history."""
        return self._read(read_histories, self.history, self.ids)

    def read_duplicates(self) -> dict[str, Ints]:
        """The rows of customers that stand in an earlier row too, by batch name."""
        return self._read(survey_results.read_duplicates, self._survey)

    def read_rows_with_shared_address(self) -> dict[str, Ints]:
        """The rows that share an address, by batch name."""
        return self._read(survey_results.read_rows_with_shared_address, self._survey)

    def read_superseded(self) -> Superseded:
        """The rows whose address belongs to a customer that is preferred to them, by batch name and campaign."""
        return self._read(survey_results.read_superseded, self._survey)

    def read_allocations(self) -> Allocations:
        """The order keys that the survey granted each limited offer."""
        return self._read(survey_results.read_offer_allocations, self._survey)

    def read_secret(self) -> bytes:
        """The secret of the unique codes. Raises JobError when it is not the one that the launch was started with."""
        secret = code_secret(self.code_secret, self.secrets if self.secret_digest else None)
        if self.secret_digest and secret_digest(secret) != self.secret_digest:
            happened = f"{self.code_secret} is not, on this worker, the secret that the launch was started with"
            raise JobError(f"{happened}. Give every worker the same one, or the secret of --secrets the same value")
        return secret

    def write_dead_letters(self, name: str, letters: Sequence[DeadLetter]) -> None:
        """Write the dead letters of a batch."""
        folder = LaunchFolder(self.output)
        uri = str(folder.dead_letters) if folder.remote is None else f"{folder.remote.uri}/dead_letters"
        write_dead_letters(uri, name, list(letters))

    def write_exposures(self, name: str, table: pa.Table, counts: dict[str, Any]) -> None:
        """Write the exposures of a batch, which is done from then on."""
        folder = LaunchFolder(self.output)
        if folder.remote is not None:
            folder.exposures.mkdir(parents=True, exist_ok=True)
        folder.write_exposures(name, table, counts)
        if folder.remote is not None:
            folder.remote.upload_file(folder.exposures / f"{name}.parquet")

    @property
    def _survey(self) -> Path:
        return LaunchFolder(self.output).survey

    def _read(self, read: Callable[..., Any], *args: Any) -> Any:
        return read(*args) if self.remote is None else after_download(self.remote, read, *args)
