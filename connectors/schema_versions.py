"""The versions of event types by the keys that a schema registry gives their schemas: Confluent's and Pub/Sub's."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar
from uuid import UUID

from google.api_core.exceptions import GoogleAPICallError, InvalidArgument, NotFound
from google.pubsub_v1 import SchemaServiceClient
from google.pubsub_v1.services.schema_service.transports import SchemaServiceGrpcTransport

from connectors.kafka.schema_registry import SchemaRegistry
from connectors.pubsub.publisher import open_channel
from schemas.contracts import avro_fingerprint
from schemas.events.event_types import EventType
from schemas.events.framing import SchemaVersion, by_fingerprint
from schemas.problems import JobError

K = TypeVar("K")
_ASK_AGAIN_S = 60.0  # about a key that the registry did not have
_MOST_KEYS = 10_000
_TIMEOUT_S = 20.0


class RemoteVersions(Generic[K]):
    """Asks a registry once for each key (`read_schema`: the text of its schema, or None), and again after a minute for
    one that is no version of these types: it may be there by then."""

    def __init__(
        self,
        types: Mapping[str, EventType],
        read_schema: Callable[[K], str | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._known, self._read_schema, self._clock = by_fingerprint(types), read_schema, clock
        self._found: dict[K, SchemaVersion] = {}
        self._missing: dict[K, float] = {}

    def get(self, key: K, /) -> SchemaVersion | None:
        """The version; None for a key of no schema of ours. Raises JobError when the registry does not answer."""
        found = self._found.get(key)
        if found is None and self._clock() >= self._missing.get(key, float("-inf")):
            found = self._known.get(avro_fingerprint(self._read_schema(key)))
            if found is None:
                if len(self._missing) >= _MOST_KEYS:
                    self._missing.clear()
                self._missing[key] = self._clock() + _ASK_AGAIN_S
            else:
                self._found[key] = found
        return found


def versions_by_id(registry: SchemaRegistry, types: Mapping[str, EventType]) -> RemoteVersions[int]:
    """The versions by the ids of a Confluent registry."""
    return RemoteVersions(types, lambda number: registry.read_schema(f"ids/{number}"))


def versions_by_guid(registry: SchemaRegistry, types: Mapping[str, EventType]) -> RemoteVersions[UUID]:
    """The versions by the GUIDs of a Confluent registry."""
    return RemoteVersions(types, lambda guid: registry.read_schema(f"guids/{guid}"))


def versions_by_revision(types: Mapping[str, EventType]) -> RemoteVersions[str]:
    """The versions by the revisions of Pub/Sub's schemas, `projects/P/schemas/S@REVISION`."""
    return RemoteVersions(types, _read_revision)


def _read_revision(name: str) -> str | None:
    channel = open_channel()
    try:
        service = SchemaServiceClient(transport=SchemaServiceGrpcTransport(channel=channel))
        return str(service.get_schema(name=name, timeout=_TIMEOUT_S).definition)
    except (NotFound, InvalidArgument):
        return None
    except GoogleAPICallError as error:
        happened = f"the schema {name} cannot be read ({type(error).__name__}: {error.message})"
        raise JobError(happened, "Give this account roles/pubsub.viewer in the project of the schema") from error
    finally:
        channel.close()
