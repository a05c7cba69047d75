"""Retailers' accounts at the vendor as engine.yaml has them: what is missing, and who would share one by accident."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from hashlib import blake2b
from typing import Protocol
from urllib.parse import quote, urlsplit

from schemas.addresses import url_problem, without_user
from schemas.campaigns.engine import EngineConfig
from schemas.campaigns.workspaces import Workspace, key_variable
from schemas.problems import Problem

FILE = "engine.yaml"


class Keys(Protocol):
    """The values of environment variables or secrets: connectors/secrets.py."""

    def __call__(self, name: str) -> str:
        """The value, "" for none."""

    def todo(self, name: str) -> str:
        """What to do when there is none."""


def configured_retailers(engine: EngineConfig) -> list[str]:
    """The retailers that have a workspace of their own, and `*` when all others have one key, which can be checked."""
    common = engine.workspaces.get("*")
    several = common is None or "{retailer}" in (common.key_env or "{retailer}")
    return [name for name in engine.workspaces if name != "*" or not several]


def filled_url(url: str, retailer: str) -> str:
    """A url with {retailer} filled in, quoted so that it stays one part of a path whatever the name."""
    name = quote(retailer, safe="")
    return url.replace("{retailer}", name.replace(".", "%2E") if set(name) == {"."} else name)


def account_problems(engine: EngineConfig, retailers: Iterable[str], keys: Keys | None) -> list[Problem]:
    """A problem for each url and key that is missing, once for all retailers that share the place; without `keys` a
    variable need not be set."""
    vendor = engine.delivery.vendor
    if vendor == "outbox":
        fix = "is no folder; the vendor outbox writes files: give a path or gs://…, or leave url out"
        urls = {name: workspace.url or "" for name, workspace in engine.workspaces.items()}
        web = {name: url for name, url in urls.items() if url.startswith(("http://", "https://"))}
        return [Problem(FILE, f"workspaces.{name}.url", url, fix) for name, url in web.items()]
    problems: dict[tuple[str, str], Problem] = {}
    for retailer in sorted(set(retailers)):
        workspace, place = engine.workspace(retailer), workspace_place(engine, retailer)
        if not workspace.url:
            fix = f"is missing; the vendor {vendor} needs the address of {retailer}'s workspace, such as https://HOST"
            problems.setdefault((place, "url"), Problem(FILE, f"{place}.url", "", fix))
        if not workspace.key_env:
            fix = f"is missing; name the environment variable that holds {retailer}'s key, such as KEY_{{retailer}}"
            problems.setdefault((place, "key_env"), Problem(FILE, f"{place}.key_env", "", fix))
            continue
        name = key_variable(workspace.key_env, retailer)
        if keys is not None and not keys(name):
            fix = f"{keys.todo(name)}: the key of {retailer}'s workspace"
            problems.setdefault((name, "unset"), Problem(FILE, f"{place}.key_env", name, fix))
    return list(problems.values())


def unusable_urls(engine: EngineConfig, retailers: Iterable[str]) -> list[Problem]:
    """A problem for each of these retailers whose name makes a url that cannot be called of one that can."""
    if engine.delivery.vendor == "outbox":
        return []
    problems = []
    for retailer in sorted(set(retailers)):
        url = engine.workspace(retailer).url or ""
        filled = filled_url(url, retailer)
        problem = None if filled == url or url_problem(filled_url(url, "retailer")) else url_problem(filled)
        if problem:
            place = f"{workspace_place(engine, retailer)}.url"
            problems.append(Problem(FILE, place, without_user(filled), f"with the retailer {retailer} {problem}"))
    return problems


def sharing_problems(engine: EngineConfig, retailers: Iterable[str], keys: Keys | None = None) -> list[Problem]:
    """A problem for each retailer that has the variable or the workspace of one before it (by name), unless both have
    the same `shared_account`; keys are compared where there are any."""
    problems = []
    owners: dict[bytes, list[str]] = defaultdict(list)
    for retailer in sorted({*retailers} - {"*"}):
        workspace = engine.workspace(retailer)
        variable = key_variable(workspace.key_env, retailer) if workspace.key_env else ""
        key = keys(variable) if keys is not None and variable else ""
        url = filled_url(workspace.url, retailer) if workspace.url else ""
        shared = []
        for digest, (name, value) in account_digests(url, variable, key).items():
            others = [other for other in owners[digest] if not _may_share(engine.workspace(other), workspace)]
            shared += [(name, value, other) for other in others[:1]]
            owners[digest].append(retailer)
        if shared:
            name, value, other = shared[0]
            place = f"{workspace_place(engine, retailer)}.{name}"
            problems.append(Problem(FILE, place, value, sharing_fix(other, retailer)))
    return problems


def account_digests(url: str, variable: str, key: str) -> dict[bytes, tuple[str, str]]:
    """The digests that identify an account: of its key's variable, and of its url and key (never the key itself), each
    with its field and value in engine.yaml."""
    digests = {}
    if variable:
        digests[_digest("variable", variable)] = ("key_env", variable)
    if url:
        digests[_digest("workspace", _plain_url(url), key or variable)] = ("url", without_user(url))
    return digests


def sharing_fix(owner: str, retailer: str) -> str:
    """What to do about two retailers with one account."""
    return (
        f"is the account of {owner} and of {retailer}: one retailer's customers would be sent to from the other's "
        "workspace; give one of them another key_env or url, or, if they share an account on purpose, give both the "
        "same shared_account"
    )


def workspace_place(engine: EngineConfig, retailer: str) -> str:
    """Where in engine.yaml a retailer's workspace is."""
    return f"workspaces.{retailer if retailer in engine.workspaces else '*'}"


def _may_share(first: Workspace, second: Workspace) -> bool:
    return first.shared_account is not None and first.shared_account == second.shared_account


def _plain_url(url: str) -> str:
    """A url in one spelling: small letters in scheme and host, no default port, no slash at the end."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return url
    if parts.scheme not in ("http", "https"):
        return url.removeprefix("file:").rstrip("/")
    shown = "" if port in (None, {"http": 80, "https": 443}[parts.scheme]) else f":{port}"
    host = (parts.hostname or "").rstrip(".")
    return f"{parts.scheme}://{host}{shown}{parts.path.rstrip('/')}?{parts.query}"


def _digest(*parts: str) -> bytes:
    return blake2b("\0".join(parts).encode(), digest_size=16).digest()
