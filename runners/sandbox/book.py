"""Record the sandbox's calls: each in a file, counts in memory."""

from __future__ import annotations

import os
import re
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

_HEX = re.compile(r"[0-9a-f]{32}")
_SECRET = {"authorization", "cookie", "x-api-key"}


class Entry(NamedTuple):
    """One call. `at` is epoch milliseconds; `status` a number, or hang, reset, lost: a reply that did not go out.
    `accepted` are the event ids sent (None: a message without one); `collapsed` counts repeated recipients;
    `not_sent` are the event ids of a call of which nothing was sent."""

    at: int
    workspace: str
    path: str
    status: int | str
    headers: dict[str, str]
    body: bytes
    accepted: Sequence[str | None] = ()
    rejected: int = 0
    collapsed: int = 0
    repeated: bool = False
    not_sent: Sequence[str] = ()


class Book:
    """Counts the calls and writes each, before it is answered, as a line of `record`: a kill loses none.

    An earlier record in that file is read first, its counts continue. Lines hold the bodies with `bodies`; in memory
    the last `keep` calls have theirs.
    """

    def __init__(self, record: str | None = None, bodies: bool = False, keep: int = 200) -> None:
        self._bodies, self._path = bodies, record
        self._last: deque[Entry] = deque(maxlen=keep)
        self._clear()
        self._file: int | None = None
        if record is not None:
            Path(record).parent.mkdir(parents=True, exist_ok=True)
            self._read(Path(record))
            self._file = os.open(record, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def _clear(self) -> None:
        self.connections = 0
        self._last.clear()
        self._status: Counter[str] = Counter()
        self._calls: Counter[str] = Counter()
        self._accepted: Counter[str] = Counter()
        self._rejected = self._collapsed = self._repeated = self._twice = 0
        self._times: dict[bytes | str, int] = {}

    def note(self, entry: Entry) -> None:
        """Record a call."""
        entry = entry._replace(headers={key: text for key, text in entry.headers.items() if key not in _SECRET})
        line = entry._asdict() | {"body": entry.body.decode("utf-8", "replace")}
        if not self._bodies:
            del line["body"]
        self._write(line)
        self._count(entry)
        self._last.append(entry)

    def _write(self, line: dict[str, Any]) -> None:
        if self._file is not None:
            os.write(self._file, msgspec.json.encode(line) + b"\n")

    def _count(self, entry: Entry) -> None:
        self._status[str(entry.status)] += 1
        self._calls[entry.workspace] += 1
        self._accepted[entry.workspace] += len(entry.accepted)
        self._rejected += entry.rejected
        self._collapsed += entry.collapsed
        self._repeated += entry.repeated
        for event in entry.accepted:
            if event is not None:
                key = _key(event)
                times = self._times[key] = self._times.get(key, 0) + 1
                self._twice += times == 2

    def _read(self, path: Path) -> None:
        if not path.exists():
            return
        with path.open("rb+") as file:
            for line in file:
                if not line.endswith(b"\n"):  # torn by a kill: that call was not answered
                    file.truncate(path.stat().st_size - len(line))
                    break
                call = msgspec.json.decode(line)
                if "reset" in call:
                    self._clear()
                else:
                    self._count(Entry(**{**call, "body": b""}))

    def reset(self) -> None:
        """Forget all calls; the file keeps its lines, and a line that says so."""
        self._write({"reset": True})
        self._clear()

    def summary(self) -> dict[str, Any]:
        """The counts: calls by status and workspace, messages, and events that were accepted more than once."""
        workspaces = {
            name: {"calls": calls, "accepted": self._accepted[name]} for name, calls in sorted(self._calls.items())
        }
        return {
            "calls": self._calls.total(),
            "by_status": dict(sorted(self._status.items())),
            "by_workspace": workspaces,
            "accepted": self._accepted.total(),
            "events": len(self._times),
            "accepted_twice": self._twice,
            "rejected": self._rejected,
            "collapsed": self._collapsed,
            "repeated_calls": self._repeated,
            "connections": self.connections,
        }

    def accepted(self) -> dict[str, int]:
        """The number of times that each event was accepted."""
        return {key.hex() if isinstance(key, bytes) else key: times for key, times in self._times.items()}

    def calls(self, limit: int) -> Iterable[dict[str, Any]]:
        """The last calls, newest first, with their bodies."""
        for entry in list(self._last)[: -limit - 1 : -1] if limit > 0 else []:
            yield entry._asdict() | {"body": entry.body.decode("utf-8", "replace")}

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _key(event: str) -> bytes | str:
    return bytes.fromhex(event) if _HEX.fullmatch(event) else event
