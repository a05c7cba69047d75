"""A worker of the feature server: a process that answers over HTTP and gRPC until SIGTERM.

python -m serving.features.worker SETTINGS      (JSON of WorkerSettings; the server starts it)
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import grpc
import msgspec

from schemas.features.catalogue import columns_of, load_catalogue
from schemas.features.declarations import FeatureGroup
from serving.features.metrics import FeatureMetrics
from serving.features.reader import FeatureReader
from serving.features.service import FeatureService
from serving.http_server import HttpConnection, Limits
from stores.events.fuse import has_blown
from stores.features.open import open_store
from transforms.features.layout import Layout

GRPC_METHOD = "/campaigns.features.v1.Features/Read"
_STOP_S = 5.0  # a request that is being answered has so long when the worker ends
_CODES = {
    200: grpc.StatusCode.OK, 400: grpc.StatusCode.INVALID_ARGUMENT, 503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}  # fmt: skip
_pack = msgspec.msgpack.Encoder().encode


class WorkerSettings(msgspec.Struct, frozen=True):
    """What a worker serves, and where. `socket_fd` is a listening socket that it inherits; without `grpc` it answers
    over HTTP only. `columns` are those of the event types, by type: reading them takes longer than all else here."""

    store: str
    features: str
    columns: dict[str, dict[str, str]]
    socket_fd: int
    grpc: str | None = None
    deadline_s: float = 1.0
    most_body: int = 1 << 20
    fuses: str | None = None


def load_layouts(features: str, columns: dict[str, dict[str, str]]) -> dict[str, Layout]:
    """The layouts of the declared groups, by id; not of those that are read from tables. Raises InputError with every
    mistake in the declarations."""
    catalogue = load_catalogue(features, columns)
    groups = [group for group in catalogue.values() if isinstance(group, FeatureGroup)]
    return {group.id: Layout(group, columns_of(group, catalogue, columns)) for group in groups}


async def serve(
    service: FeatureService, listening: socket.socket, settings: WorkerSettings, ready: Callable[[], None],
    stop: asyncio.Event,
) -> None:  # fmt: skip
    """Answers requests until `stop` is set, then those that have arrived."""
    loop, opened = asyncio.get_running_loop(), set[HttpConnection]()
    make = partial(HttpConnection, service.answer, Limits(body=settings.most_body), opened)
    server = await loop.create_server(make, sock=listening, backlog=1_024)
    rpc = await _start_grpc(service, settings) if settings.grpc else None
    ready()
    await stop.wait()
    server.close()
    for connection in list(opened):
        connection.close_when_done()
    if rpc is not None:
        await rpc.stop(_STOP_S)
    end = loop.time() + _STOP_S
    while opened and loop.time() < end:
        await asyncio.sleep(0.01)


async def _start_grpc(service: FeatureService, settings: WorkerSettings) -> grpc.aio.Server:
    """A gRPC server of our own call; a request and a response are MessagePack."""

    async def read(body: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        status, data = await service.run("grpc", service.compact_msgpack, body, context.time_remaining())
        if status != 200:
            await context.abort(_CODES.get(status, grpc.StatusCode.INTERNAL), _text(data))
        return _pack(data)

    options = [("grpc.so_reuseport", 1), ("grpc.max_receive_message_length", settings.most_body)]
    server = grpc.aio.server(options=options)
    handlers = {GRPC_METHOD.rpartition("/")[2]: grpc.unary_unary_rpc_method_handler(read)}
    service_name = GRPC_METHOD.split("/")[1]
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service_name, handlers),))
    assert settings.grpc is not None
    server.add_insecure_port(settings.grpc)
    await server.start()
    return server


def _text(data: dict[str, object]) -> str:
    """The error of a response that failed."""
    if "error" in data:
        return str(data["error"])
    groups = data["groups"]
    assert isinstance(groups, dict)
    return next(str(one["error"]) for one in groups.values() if one["error"])


def run(settings: WorkerSettings, ready: Callable[[], None]) -> None:
    """Serves until SIGTERM or SIGINT. Raises InputError for mistakes in the declarations and the store's URI, JobError
    for a store that does not open."""
    layouts = load_layouts(settings.features, settings.columns)
    store = open_store(settings.store, read_only=True)
    suspect = partial(has_blown, settings.fuses) if settings.fuses else lambda source: False
    reader = FeatureReader(store, layouts, lambda: time.time_ns() // 1_000_000, suspect)
    local = settings.store.startswith("lmdb:")
    service = FeatureService(reader, FeatureMetrics(), local=local, deadline_s=settings.deadline_s)
    gc.collect()
    gc.freeze()  # what is loaded is never garbage: searching it would take milliseconds now and then

    async def main() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        listening = socket.socket(fileno=settings.socket_fd)
        await serve(service, listening, settings, ready, stop)

    try:
        asyncio.run(main())
    finally:
        service.close()
        store.close()


def main() -> None:
    """Runs a worker with the settings of the command line, and writes a line to its standard output once it answers."""
    settings = msgspec.json.decode(sys.argv[1], type=WorkerSettings)

    def ready() -> None:
        threading.Thread(target=_end_with_parent, daemon=True).start()
        with suppress(BrokenPipeError):
            sys.stdout.write("ready\n")
            sys.stdout.flush()

    run(settings, ready)


def _end_with_parent() -> None:
    while os.read(0, 1):  # standard input ends with the process that started this one
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
