"""The feature store in Redis: a hash for each group and entity, with a field for each partition.

A script in the server compares the stamps, so the larger wins whichever process writes last. One primary server holds
the keys; replicas and Memorystore's standard tier are the same to a client, a cluster is not supported.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

from redis import Redis
from redis.backoff import ConstantBackoff
from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.exceptions import ConnectionError as LostConnection
from redis.retry import Retry

from schemas.features.stamps import Stamp, pack_stamp, stamp_of
from schemas.problems import JobError
from stores.features.keys import entity_prefix, group_prefix, parse_key
from stores.features.protocol import RowKey

_ROWS, _POSITIONS = b"features\0", b"features-positions\0"  # what keys begin with
_PARTITION = struct.Struct(">H")
_BATCH = 500  # keys of one call of the script, during which the server does nothing else
# A number in Lua is exact up to 2**53, so a position is compared in halves.
_WRITE = """
local written = 0
for i, key in ipairs(KEYS) do
  local row = ARGV[i + 2]
  local old = redis.call('HGET', key, ARGV[1])
  local larger = not old
  if old then
    local e0, l0, h0 = struct.unpack('<I4I4i4', old)
    local e1, l1, h1 = struct.unpack('<I4I4i4', row)
    larger = e1 > e0 or (e1 == e0 and (h1 > h0 or (h1 == h0 and l1 > l0)))
  end
  if larger then
    redis.call('HSET', key, ARGV[1], row)
    written = written + 1
  end
  if tonumber(ARGV[2]) > 0 then redis.call('EXPIRE', key, ARGV[2]) end
end
return written
"""


class RedisStore:
    """A FeatureStore in the database of a Redis server (`redis://[:PASSWORD@]HOST:PORT/DB`). Safe for several threads.

    With `expire_s` an entity that is not written for so many seconds goes: choose more than the longest window and the
    lateness of any group. The server must not evict (`maxmemory-policy noeviction`), or rows go missing unnoticed. An
    answer that does not come within `deadline_s` seconds is a JobError; a lost connection is opened once again.
    """

    def __init__(self, uri: str, *, expire_s: int = 0, deadline_s: float = 2.0) -> None:
        self._expire_s = expire_s
        self._client: Any = Redis.from_url(
            uri, socket_timeout=deadline_s, socket_connect_timeout=deadline_s,
            retry=Retry(ConstantBackoff(0.01), 1, (LostConnection,)),
        )  # fmt: skip
        pool = self._client.connection_pool.connection_kwargs
        self._address = f"redis://{pool.get('host')}:{pool.get('port')}/{pool.get('db')}"  # without the password
        self._script = self._client.register_script(_WRITE)

    def rows(self, group: str, partition: int, entities: Sequence[str]) -> list[bytes | None]:
        field = _PARTITION.pack(partition)
        return self._pipelined([("HGET", _key(group, entity), field) for entity in entities])

    def write(self, group: str, partition: int, rows: Mapping[str, bytes]) -> int:
        for row in rows.values():
            stamp_of(row)  # raises ValueError before anything is written
        return self._put(partition, {_key(group, entity): row for entity, row in rows.items()}, self._expire_s)

    def read(self, wanted: Sequence[tuple[str, str]]) -> list[list[bytes]]:
        hashes = self._pipelined([("HGETALL", _key(group, entity)) for group, entity in wanted])
        return [[row for _, row in sorted(fields.items())] for fields in hashes]

    def positions(self, group: str) -> dict[int, Stamp]:
        (fields,) = self._pipelined([("HGETALL", _POSITIONS + group_prefix(group))])
        return {_PARTITION.unpack(field)[0]: stamp_of(row) for field, row in sorted(fields.items())}

    def advance(self, group: str, partition: int, stamp: Stamp) -> None:
        self._put(partition, {_POSITIONS + group_prefix(group): pack_stamp(stamp)}, 0)

    def scan(self, group: str) -> Iterator[tuple[RowKey, bytes]]:
        pattern = _escaped(_ROWS + group_prefix(group)) + b"*"
        seen = set[bytes]()  # a scan may give a key twice
        cursor: int | None = None
        while cursor != 0:
            with self._answering():
                cursor, keys = self._client.scan(cursor or 0, match=pattern, count=1_000)
            new = [key for key in keys if key not in seen]
            seen.update(new)
            for key, fields in zip(new, self._pipelined([("HGETALL", key) for key in new]), strict=True):
                yield from ((parse_key(key[len(_ROWS) :] + field), row) for field, row in sorted(fields.items()))

    def delete(self, group: str, entity: str) -> int:
        key = _key(group, entity)
        with self._answering():
            count, _ = self._client.pipeline(transaction=True).hlen(key).delete(key).execute()
        return int(count)

    def close(self) -> None:
        self._client.close()

    def _put(self, partition: int, rows: Mapping[bytes, bytes], expire_s: int) -> int:
        left, field, written = iter(rows.items()), _PARTITION.pack(partition), 0
        while part := list(islice(left, _BATCH)):
            keys = [key for key, _ in part]
            arguments: list[Any] = [field, expire_s, *(row for _, row in part)]
            with self._answering():
                written += int(self._script(keys=keys, args=arguments))
        return written

    def _pipelined(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        if not commands:
            return []
        with self._answering():
            pipeline = self._client.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            return list(pipeline.execute())

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except (ResponseError, AuthenticationError) as error:
            todo = (
                "See that the database holds only this feature store, that the server has memory left, and its password"
            )
            raise JobError(f"{self._address} refused: {error}", todo) from error
        except RedisError as error:
            todo = "See whether the server runs and can be reached"
            raise JobError(f"{self._address} does not answer: {error}", todo) from error


def _key(group: str, entity: str) -> bytes:
    return _ROWS + entity_prefix(group, entity)


def _escaped(pattern: bytes) -> bytes:
    return b"".join(b"\\" + bytes([byte]) if byte in b"*?[]^-\\" else bytes([byte]) for byte in pattern)
