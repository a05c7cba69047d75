"""The local path of a folder of configuration; the copy of a gs:// folder is refreshed every 30 s."""

from __future__ import annotations

import logging
from pathlib import Path
from threading import Thread

from connectors.gcs import RemoteFolder, is_remote
from schemas.problems import JobError

REFRESH_EVERY_S = 30.0
_log = logging.getLogger(__name__)


class FolderCopy:
    """A folder, at `path` on this machine; a local one is its own copy."""

    def __init__(self, folder: str | Path) -> None:
        self._remote = RemoteFolder(str(folder)) if is_remote(folder) else None
        self.path = Path(folder) if self._remote is None else self._remote.path
        self._refreshed_at = float("-inf")
        self.refreshing: Thread | None = None

    def refresh(self, now: float, *, wait: bool) -> None:
        """Refreshes the copy of a gs:// folder: with `wait` before it returns, else in a thread. Does nothing within 30
        s of the last refresh. Raises JobError with `wait`; a thread logs it."""
        if self._remote is None or 0 <= now - self._refreshed_at < REFRESH_EVERY_S:
            return
        if wait:
            self._remote.pull()
        elif self.refreshing is None or not self.refreshing.is_alive():
            self.refreshing = Thread(target=_pull, args=(self._remote,), daemon=True)
            self.refreshing.start()
        self._refreshed_at = now


def _pull(remote: RemoteFolder) -> None:
    try:
        remote.pull()
    except JobError as error:
        _log.warning("%s The settings that were read stay in force.", error)
