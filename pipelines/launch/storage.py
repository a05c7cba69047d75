"""Where a launch keeps its files: on this machine, or in Cloud Storage with a copy on this machine."""

from __future__ import annotations

from connectors.inputs.histories import history_files
from pipelines.launch.options import LaunchConfig
from pipelines.launch.remote_inputs import SHARED, RemoteInputs
from stores.launches.launch_folder import LaunchFolder


class LocalStorage:
    """The files of a launch whose workers share this machine's disk: nothing is downloaded or uploaded."""

    remote_inputs: RemoteInputs | None = None

    def download(self) -> None:
        """Does nothing: the launch is on this machine."""

    def upload_inputs(self) -> None:
        """Does nothing: workers read the files where they are."""

    def upload_results(self) -> None:
        """Does nothing: the results are written to their place."""


class CloudStorage(LocalStorage):
    """The files of a launch whose workers share no disk with this machine: its output is a folder gs://BUCKET/FOLDER.

    Every method raises TransportError when the storage refuses.
    """

    def __init__(self, config: LaunchConfig, folder: LaunchFolder) -> None:
        assert folder.remote is not None
        self._config, self._folder, self._remote = config, folder, folder.remote

    @property
    def remote_inputs(self) -> RemoteInputs:  # type: ignore[override]
        """What a worker downloads before it reads."""
        config = self._config
        files = (*map(str, history_files(config.history)), *([config.sticky] if config.sticky else ()))
        return RemoteInputs(self._remote.uri, config.mirrors, files)

    def download(self) -> None:
        """Makes the copy of the launch the same as its folder."""
        self._remote.pull()

    def upload_inputs(self) -> None:
        """Uploads the snapshot, the campaigns and the survey's results; the manifest last."""
        for below in ("snapshot", *SHARED):
            self._remote.push(below)
        self._remote.upload_file(self._folder.manifest)

    def upload_results(self) -> None:
        """Uploads the snapshot's dead letters, the sticky assignments and the report; the summary last."""
        self._remote.push("dead_letters")
        for path in (self._folder.sticky, self._folder.report, self._folder.summary):
            if path.is_file():
                self._remote.upload_file(path)


def choose_storage(config: LaunchConfig, folder: LaunchFolder) -> LocalStorage:
    """The storage of a launch: the cloud's if its output is there."""
    return LocalStorage() if folder.remote is None else CloudStorage(config, folder)
