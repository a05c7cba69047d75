"""The simulated vendor without the network: a function of a request to a reply, which also records the call."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import msgspec

from runners.sandbox.book import Book, Entry
from runners.sandbox.endpoints import (
    ENDPOINTS,
    SEND,
    WEBHOOK,
    Json,
    Verdict,
    campaign_of,
    event_ids_of,
    recipients_of,
    refusal,
)
from runners.sandbox.script import Asked, Rule, Script

MAX_BODY = 4_000_000
CALLS_PER_HOUR = 250_000
_HOUR = 3600
_WORKSPACE = re.compile(r"/w/([^/]+)(/.*)")
_MESSAGES = {401: "Invalid API Key", 403: "Forbidden", 404: "Not Found", 413: "Payload Too Large"}


class Request(NamedTuple):
    """A call as it came; header names are lower case."""

    path: str
    headers: Mapping[str, str]
    body: bytes


class Reply(NamedTuple):
    """What goes back after `delay_s`: all of it, the first `half`, or nothing and a `reset` or a `hang`."""

    status: int
    headers: dict[str, str]
    body: bytes
    delay_s: float = 0.0
    how: Literal["whole", "half", "reset", "hang"] = "whole"


class HourBucket:
    """The vendor's limit: so many calls a workspace until the clock hour ends, then all of them again; and the headers
    that report it. `clock` gives epoch seconds."""

    def __init__(self, calls_per_hour: int, clock: Callable[[], float]) -> None:
        if calls_per_hour < 1:
            raise ValueError(f"calls_per_hour {calls_per_hour} must be positive")
        self._calls, self._clock = calls_per_hour, clock
        self._taken: dict[str, tuple[int, int]] = {}

    def take(self, workspace: str) -> tuple[bool, dict[str, str]]:
        """Take a call: whether it is within the limit, and the limit headers."""
        hour = int(self._clock() // _HOUR)
        known, taken = self._taken.get(workspace, (hour, 0))
        taken = taken if known == hour else 0
        allowed = taken < self._calls
        taken += allowed
        self._taken[workspace] = (hour, taken)
        return allowed, {
            "x-ratelimit-limit": str(self._calls),
            "x-ratelimit-remaining": str(self._calls - taken),
            "x-ratelimit-reset": str((hour + 1) * _HOUR),
        }

    def clear(self) -> None:
        """Reset the limit of every workspace."""
        self._taken.clear()


@dataclass
class StandIn:
    """Answers calls by the vendor's rules, or as the script says. `keys` maps workspaces to their keys (none: any key
    is taken); `clock` gives epoch seconds."""

    book: Book
    script: Script = field(default_factory=Script)
    keys: Mapping[str, str] = field(default_factory=dict)
    calls_per_hour: int = CALLS_PER_HOUR
    clock: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        self._bucket = HourBucket(self.calls_per_hour, self.clock)
        self._repeats: dict[str, bytes] = {}

    def reset(self) -> None:
        """Forget all calls; the script starts again."""
        self.book.reset()
        self.script.restart()
        self._bucket.clear()
        self._repeats.clear()

    def answer(self, request: Request) -> Reply:
        """The reply to a call, after the call is recorded."""
        prefix = _WORKSPACE.fullmatch(request.path)
        path = prefix[2] if prefix else request.path
        workspace, key_is_right = self._workspace(prefix[1] if prefix else None, path, request)
        limits: dict[str, str] = {}
        rule, repeated = None, False
        body = _parsed(request.body)
        if wrong := _wrong_request(path, request, key_is_right, body):
            verdict = wrong
        else:
            recipients = recipients_of(body)
            asked = Asked(workspace, path, campaign_of(body), recipients)
            rule, bad = self.script.choose(asked) or (None, [])
            allowed, limits = self._bucket.take(workspace) if path == SEND else (True, {})
            known = self._repeats.get(request.headers.get("idempotency-key", "")) if path == WEBHOOK else None
            if known is not None:
                verdict, repeated = Verdict(200, msgspec.json.decode(known)), True
            elif rule is None and not allowed:
                verdict = refusal(429, "Too Many Requests")
            else:
                verdict = _verdict(rule, path, body, bad)
            if path == WEBHOOK and verdict.status < 300:
                self._repeats[request.headers["idempotency-key"]] = msgspec.json.encode(verdict.reply)
        reply = _reply(rule, verdict, limits, self.clock())
        self._note(request, workspace, path, verdict, reply, repeated)
        return reply

    def _workspace(self, named: str | None, path: str, request: Request) -> tuple[str, bool]:
        """The workspace a call is for, and whether it has the right key."""
        if path == WEBHOOK:
            workspace = named or "default"
            key, signature = self.keys.get(workspace), request.headers.get("x-campaigns-signature", "")
            return workspace, _signed(key, signature, request.body) if key else not self.keys and bool(signature)
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or not key.strip():
            return named or "default", False
        if not self.keys:
            return named or "default", True
        owner = next((name for name, own in self.keys.items() if hmac.compare_digest(own.encode(), key.encode())), None)
        return named or owner or "default", owner is not None and named in (None, owner)

    def _note(
        self, request: Request, workspace: str, path: str, verdict: Verdict, reply: Reply, repeated: bool
    ) -> None:
        lost = "lost" if verdict.status < 300 else reply.how
        status = reply.status if reply.how == "whole" else lost
        call = int(self.clock() * 1000), workspace, path, status, dict(request.headers), request.body
        not_sent = [] if len(verdict.accepted) else event_ids_of(_parsed(request.body))
        self.book.note(Entry(*call, verdict.accepted, verdict.rejected, verdict.collapsed, repeated, not_sent))


def _parsed(body: bytes) -> Json:
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None


def _wrong_request(path: str, request: Request, key_is_right: bool, body: Json) -> Verdict | None:
    """The refusal of a request before its body is checked, or None."""
    if path not in ENDPOINTS:
        return refusal(404, "Not Found")
    if len(request.body) > MAX_BODY:
        return refusal(413, "Payload Too Large")
    if not key_is_right:
        return refusal(401, "Invalid API Key")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return refusal(400, "The content type must be application/json")
    if path == WEBHOOK and not request.headers.get("idempotency-key"):
        return refusal(400, "The header Idempotency-Key is missing")
    return refusal(400, "The body is no JSON") if body is None else None


def _signed(key: str, signature: str, body: bytes) -> bool:
    parts = dict(part.partition("=")[::2] for part in signature.split(","))
    made = hmac.new(key.encode(), parts.get("t", "").encode() + b"." + body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(made, parts.get("v1", ""))


def _verdict(rule: Rule | None, path: str, body: Json, bad: list[str]) -> Verdict:
    """The verdict of the vendor, or of the script instead, about a body."""
    answer = rule.answer if rule else 201
    if rule and answer == "fatal":
        return refusal(201, rule.message or "The campaign is not active")
    if answer in ("hang", "reset"):
        return refusal(500, "")
    if rule and isinstance(answer, int) and rule.form == "accepted":
        verdict = ENDPOINTS[path](body, (), "named")
        reply = {"message": rule.message or f"Answered {answer} after it was accepted"}
        return verdict._replace(status=answer, reply=reply) if verdict.status < 300 else verdict
    if isinstance(answer, int) and answer >= 300:
        message = (rule.message if rule else None) or _MESSAGES.get(answer, f"Answered {answer} by script")
        return refusal(answer, message)
    if rule and answer == "errors":
        named = bad if rule.match.recipient else bad[:1]
        return ENDPOINTS[path](body, set(named), rule.form or "named")
    verdict = ENDPOINTS[path](body, (), "named")
    return verdict._replace(status=answer) if rule and isinstance(answer, int) and verdict.status < 300 else verdict


def _reply(rule: Rule | None, verdict: Verdict, limits: Mapping[str, str], now: float) -> Reply:
    headers = {"content-type": "application/json", **limits}
    body = msgspec.json.encode(verdict.reply)
    if rule is None:
        return Reply(verdict.status, headers, body)
    seconds = rule.seconds if rule.seconds is not None else float(rule.answer in ("slow", 429))
    if rule.answer == 429:
        return Reply(429, _slowed(headers, rule.form or "retry-after", seconds, now), body)
    how: Any = {"hang": "hang", "reset": "reset", "lose": rule.form or "reset"}.get(str(rule.answer), "whole")
    return Reply(verdict.status, headers, body, seconds, how)


def _slowed(headers: Mapping[str, str], form: str, seconds: float, now: float) -> dict[str, str]:
    """The headers of a 429; without limit headers where these would say when to come again."""
    kept = {name: text for name, text in headers.items() if name != "x-ratelimit-reset"}
    if form == "none":
        return kept
    if form == "reset":
        return {**kept, "x-ratelimit-reset": str(int(now + seconds))}
    return {**kept, "x-ratelimit-reset" if form == "seconds" else form: f"{seconds:g}"}
