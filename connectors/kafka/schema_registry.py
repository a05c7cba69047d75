"""A client of a Confluent schema registry, and the frame of its messages: a zero byte, the schema's id, the body."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import urllib3

from schemas.contracts import avro_fingerprint, is_known, resolve
from schemas.problems import JobError
from schemas.transport import Envelope

_USER, _PASSWORD = "CAMPAIGNS_REGISTRY_USER", "CAMPAIGNS_REGISTRY_PASSWORD"
_MAGIC, _FRAME = 0, 5
_TRIES, _TIMEOUT_S = 5, 10.0
_JSON = "application/vnd.schemaregistry.v1+json"


class SchemaRegistry:
    """A registry by its URL; user and password come from CAMPAIGNS_REGISTRY_USER and CAMPAIGNS_REGISTRY_PASSWORD. Asks
    for each id and each schema once. Raises JobError when it refuses, or gives no answer five times."""

    def __init__(self, url: str, sleep: Callable[[float], None] = time.sleep) -> None:
        self._url, self._sleep = url.rstrip("/"), sleep
        user, password = os.environ.get(_USER), os.environ.get(_PASSWORD, "")
        login = urllib3.make_headers(basic_auth=f"{user}:{password}") if user else {}
        self._http = urllib3.PoolManager(headers={**login, "Content-Type": _JSON, "Accept": _JSON}, retries=False)
        self._schema_ids: dict[int, str | None] = {}
        self._frames: dict[str, bytes] = {}

    def frame(self, topic: str, schema_id: str) -> bytes:
        """The frame before a body of our schema with this fingerprint; registers it under TOPIC-value if needed."""
        if schema_id not in self._frames:
            place = f"/subjects/{quote(topic, safe='')}-value/versions"
            answer = self._call("POST", place, {"schema": json.dumps(resolve(schema_id))})
            self._frames[schema_id] = bytes([_MAGIC]) + int(answer["id"]).to_bytes(4, "big")
        return self._frames[schema_id]

    def unframe(self, envelope: Envelope) -> Envelope:
        """The message without its frame, with the fingerprint of its schema. A message of a foreign schema keeps its
        bytes, and its attribute `schema` is registry-ID; one without a frame stays as it is."""
        body = envelope.body
        if len(body) < _FRAME or body[0] != _MAGIC:
            return envelope
        number = int.from_bytes(body[1:_FRAME], "big")
        if number not in self._schema_ids:
            self._schema_ids[number] = self._read_schema_id(number)
        schema_id = self._schema_ids[number]
        attributes = {**envelope.attributes, "schema": schema_id or f"registry-{number}"}
        return envelope._replace(attributes=attributes, body=body[_FRAME:] if schema_id else body)

    def _read_schema_id(self, number: int) -> str | None:
        """The fingerprint of the schema with that id; None if it is no version of ours."""
        schema_id = avro_fingerprint(self.read_schema(f"ids/{number}"))
        return schema_id if is_known(schema_id) else None

    def read_schema(self, place: str) -> str | None:
        """The text of the Avro schema `ids/ID` or `guids/GUID`; None where there is none."""
        answer = self._call("GET", f"/schemas/{place}", None)
        written = answer.get("schema") if answer.get("schemaType", "AVRO") == "AVRO" else None
        return written if isinstance(written, str) else None

    def _call(self, method: str, place: str, body: Any) -> dict[str, Any]:
        """The JSON answer; empty where there is none of that name."""
        data = None if body is None else json.dumps(body).encode()
        happened = ""
        for turn in range(_TRIES):
            if turn:
                self._sleep(0.2 * 2**turn)
            try:
                answer = self._http.request(method, self._url + place, body=data, timeout=_TIMEOUT_S)
            except urllib3.exceptions.HTTPError as error:
                happened = type(error).__name__
                continue
            if answer.status == 200:
                return dict(answer.json())
            if answer.status in (400, 404, 422) and method == "GET":  # registries differ in what an id may be
                return {}
            happened = f"{answer.status}: {answer.data[:200].decode('utf-8', 'replace')}"
            if answer.status < 500 and answer.status != 429:
                break
        todo = f"Check --schema_registry and the environment's {_USER} and {_PASSWORD}, then run the same command again"
        raise JobError(f"The schema registry {self._url} does not give what is asked for ({happened})", todo)
