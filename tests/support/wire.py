"""A wire to a broker that a test can cut and mend."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class Wire:
    """Forwards TCP connections to `target` (host:port) while it is whole; `cut` after so many bytes, or now."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._server = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._whole = True
        self._left: int | None = None
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def host(self) -> str:
        """host:port of this end."""
        return f"127.0.0.1:{self._server.getsockname()[1]}"

    def cut(self, after: int | None = None) -> None:
        """Close every connection and refuse new ones, now or when `after` bytes have gone to the broker."""
        if after is not None:
            self._left = after
            return
        self._whole = False
        for end in list(self._open):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Connect again."""
        self._left = None
        self._whole = True

    @property
    def whole(self) -> bool:
        """Whether the wire carries."""
        return self._whole

    def close(self) -> None:
        """End it."""
        self.cut()
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            if not self._whole:
                near.close()
                continue
            far = socket.create_connection(self._target)
            self._open |= {near, far}
            threading.Thread(target=self._carry, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._carry, args=(far, near, False), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
                if counted and self._left is not None:
                    self._left -= len(data)
                    if self._left <= 0:
                        self._left = None
                        self.cut()
        for end in (source, sink):
            with suppress(OSError):
                end.close()
        self._open -= {source, sink}
