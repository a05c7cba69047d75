"""The configuration of a launch: engine.yaml, the campaigns and the named audiences of one folder."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from schemas.addresses import url_problem, without_user
from schemas.campaigns.accounts import filled_url
from schemas.campaigns.audience import InList, Named, NamedAudience, Node, leaves
from schemas.campaigns.campaign import Campaign
from schemas.campaigns.checks.campaigns import duplicate_ids, shared_codes, unknown_channels, unread_files
from schemas.campaigns.checks.experiments import experiment_problems
from schemas.campaigns.engine import EngineConfig
from schemas.campaigns.yaml_files import Document, read_yaml
from schemas.problems import Problem

M = TypeVar("M", bound=BaseModel)
_FIELDS = "must hold fields, each on a line of its own: name: value"
_LIST = "must be a list: [first, second], or a line with a dash for each"
_FIXES = {
    "missing": "is missing; add it",
    "too_short": "is empty; name one at least",
    "string_type": "must be a text; put it in quotes",
    "string_too_short": "is empty; write a value, or remove the line",
    **dict.fromkeys(("tuple_type", "list_type"), _LIST),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), _FIELDS),
}
"""By the type of pydantic's error: what to do, where pydantic names a type of Python."""


@dataclass(frozen=True)
class Configuration:
    """The checked files of a folder. `campaigns` are ordered by priority, then id; `files` names every file used."""

    root: Path
    engine: EngineConfig
    campaigns: tuple[Campaign, ...]
    audiences: dict[str, Node]
    documents: dict[str, Document]
    versions: dict[str, str]
    files: tuple[str, ...]

    @property
    def lists(self) -> tuple[tuple[str, str | None], ...]:
        """Each list file with the customers' column that is looked up in it; a code list without one."""
        lists: list[tuple[str, str | None]] = [(entry.file, entry.column) for entry in self.engine.suppression_lists]
        for node in (*(campaign.audience for campaign in self.campaigns), *self.audiences.values()):
            lists += [(leaf.list, leaf.column) for leaf in leaves(node) if isinstance(leaf, InList)]
        lists += [(o.codes, None) for campaign in self.campaigns for o in campaign.offers if o.codes]
        return tuple(dict.fromkeys(lists))


def load_configuration(root: Path) -> tuple[Configuration | None, list[Problem]]:
    """The configuration of a folder and every problem of every file.

    The configuration holds the files that are sound, so that later checks can add their problems
    to the same report; it is None when the engine or every campaign is broken.
    """
    if not root.is_dir():
        return None, [Problem(str(root), "", "", "is not a folder; give the folder that holds engine.yaml")]
    problems = unread_files(root)
    documents = _documents(root, problems)
    engine = read_model(documents.get("engine.yaml"), EngineConfig, problems)
    audience_files = {Path(name).stem: doc for name, doc in documents.items() if name.startswith("audiences/")}
    audiences = {name: read_model(doc, NamedAudience, problems) for name, doc in audience_files.items()}
    campaign_files = [doc for name, doc in documents.items() if name != "engine.yaml" and "/" not in name]
    campaigns = [(doc, model) for doc in campaign_files if (model := read_model(doc, Campaign, problems))]
    if not any(path.name != "engine.yaml" for path in root.glob("*.yaml")):
        problems.append(Problem(str(root), "", "no *.yaml", "holds no campaign; add a file such as welcome.yaml"))
    for document in [*campaign_files, *audience_files.values()]:
        problems += _references(document, {path.stem for path in root.glob("audiences/*.yaml")}, root)
    problems += _cycles(audience_files) + duplicate_ids(campaigns)
    problems += experiment_problems(campaigns) + shared_codes(campaigns, root)
    for document, campaign in campaigns:
        problems += _campaign_references(document, campaign, engine, root)
    problems += _engine_references(documents.get("engine.yaml"), engine, root)
    if engine is None or not campaigns:
        return None, problems
    return Configuration(
        root=root,
        engine=engine,
        campaigns=tuple(sorted((c for _, c in campaigns), key=lambda c: (c.priority, c.id))),
        audiences={name: model.audience for name, model in audiences.items() if model},
        documents={campaign.id: document for document, campaign in campaigns},
        files=tuple(sorted({*documents, *_list_files([*campaign_files, *audience_files.values()], campaigns, engine)})),
        versions={c.id: hashlib.sha256((root / d.file).read_bytes()).hexdigest()[:12] for d, c in campaigns},
    ), problems


def load_engine(root: Path) -> tuple[EngineConfig | None, list[Problem]]:
    """engine.yaml of a folder without its campaigns, and every problem of it; None when it is broken."""
    document = read_yaml(root / "engine.yaml", "engine.yaml")
    if isinstance(document, Problem):
        return None, [document]
    problems: list[Problem] = []
    engine = read_model(document, EngineConfig, problems)
    return engine, [*problems, *_engine_references(document, engine, root)]


def workspace_files(engine: EngineConfig) -> set[str]:
    """The templates and the warm-up signals that the workspaces name."""
    return {name for _, name in _workspace_places(engine)}


def _workspace_places(engine: EngineConfig) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """The place in engine.yaml and the name of each file of a workspace."""
    for retailer, workspace in engine.workspaces.items():
        for template, name in workspace.templates.items():
            yield ("workspaces", retailer, "templates", template), name
        warm_up = workspace.pace.warm_up if workspace.pace else None
        if warm_up and warm_up.signals:
            yield ("workspaces", retailer, "pace", "warm_up", "signals"), warm_up.signals


def _list_files(
    documents: list[Document], campaigns: list[tuple[Document, Campaign]], engine: EngineConfig
) -> set[str]:
    """The id lists, code lists, templates and signals that something names."""
    leaves = [leaf for document in documents for leaf in _written_leaves(document.data.get("audience"), ())]
    codes = [offer.codes for _, campaign in campaigns for offer in campaign.offers if offer.codes]
    lists = [name for kind, name, _ in leaves if kind == "list"]
    return {*codes, *lists, *(entry.file for entry in engine.suppression_lists), *workspace_files(engine)}


def _documents(root: Path, problems: list[Problem]) -> dict[str, Document]:
    documents: dict[str, Document] = {}
    for path in [root / "engine.yaml", *sorted(root.glob("audiences/*.yaml")), *sorted(root.glob("*.yaml"))]:
        name = path.relative_to(root).as_posix()
        document = documents.get(name) or read_yaml(path, name)
        if isinstance(document, Problem):
            problems.append(document)
        else:
            documents[name] = document
    return documents


def read_model(document: Document | None, model: type[M], problems: list[Problem]) -> M | None:
    """The model of a document; None where there is none, and where it is broken, which adds its problems."""
    if document is None:
        return None
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        problems += [_problem(document, model, detail) for detail in error.errors(include_url=False)]
        return None


def _problem(document: Document, model: type[BaseModel], detail: Any) -> Problem:
    path = _written_path(document.data, detail["loc"])
    if detail["type"] == "extra_forbidden":
        message = _unknown_field(model, path)
    else:
        message = _FIXES.get(detail["type"], detail["msg"].removeprefix("Value error, "))
    value = "" if detail["type"] == "missing" else detail["input"]
    return document.problem(path, value if not isinstance(value, dict | list) else "…", message)


def _written_path(data: Any, loc: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """The error's location without the names that pydantic adds for the branch of a union."""
    path: list[str | int] = []
    for index, part in enumerate(loc):
        if isinstance(data, dict) and (part in data or index == len(loc) - 1):
            if part not in data and path and part == path[-1]:
                continue
            path.append(part)
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            path.append(part)
            data = data[part]
    return tuple(path)


def _unknown_field(model: type[BaseModel], path: tuple[str | int, ...]) -> str:
    schema = model.model_json_schema()
    names = {name for part in (schema, *schema.get("$defs", {}).values()) for name in part.get("properties", {})}
    near = difflib.get_close_matches(str(path[-1]), names, n=1)
    return "is not a known field" + (f"; did you mean {near[0]!r}?" if near else "; remove it")


def _written_leaves(raw: Any, path: tuple[str | int, ...]) -> Iterator[tuple[str, str, tuple[str | int, ...]]]:
    """(kind, name, place) of each named audience and id list written in a tree, sound or not."""
    for key in ("all", "any"):
        children = raw.get(key) if isinstance(raw, dict) else None
        for index, child in enumerate(children if isinstance(children, list) else ()):
            yield from _written_leaves(child, (*path, key, index))
    if isinstance(raw, dict):
        yield from _written_leaves(raw.get("not"), (*path, "not"))
        for kind in ("audience", "list"):
            if isinstance(raw.get(kind), str):
                yield kind, raw[kind], (*path, kind)


def _references(document: Document, audiences: set[str], root: Path) -> list[Problem]:
    problems = []
    for kind, name, place in _written_leaves(document.data.get("audience"), ("audience",)):
        if kind == "audience" and name not in audiences:
            fix = f"no file audiences/{name}.yaml; there are: {', '.join(sorted(audiences)) or 'none'}"
            problems.append(document.problem(place, name, fix))
        if kind == "list":
            problems += _file(document, place, name, root)
    return problems


def _uses(document: Document) -> set[str]:
    leaves = _written_leaves(document.data.get("audience"), ("audience",))
    return {name for kind, name, _ in leaves if kind == "audience"}


def used_audiences(config: Configuration) -> set[str]:
    """The named audiences that a campaign of the folder uses, directly or through others."""
    frontier = {name for document in config.documents.values() for name in _uses(document)}
    reached = set[str]()
    while frontier:
        reached |= frontier
        parts = [leaf for name in frontier & config.audiences.keys() for leaf in leaves(config.audiences[name])]
        frontier = {leaf.audience for leaf in parts if isinstance(leaf, Named)} - reached
    return reached


def _file(document: Document, path: tuple[str | int, ...], name: str, root: Path) -> list[Problem]:
    try:
        full = (root / name).resolve()
        is_file = full.is_file()
    except (OSError, ValueError):
        return [document.problem(path, name, "is no name of a file; give a path in the folder of the campaigns")]
    if not full.is_relative_to(root.resolve()):
        return [document.problem(path, name, "must stay inside the folder of the campaigns")]
    if not is_file:
        return [document.problem(path, name, f"there is no such file in the campaigns' folder {root.name}/")]
    return []


def _campaign_references(
    document: Document, campaign: Campaign, engine: EngineConfig | None, root: Path
) -> list[Problem]:
    problems = []
    if engine is not None and campaign.channel not in engine.channels:
        fix = f"engine.yaml has no such channel; it has: {', '.join(engine.channels)}"
        problems.append(document.problem(("channel",), campaign.channel, fix))
    for index, offer in enumerate(campaign.offers):
        if offer.codes:
            problems += _file(document, ("offers", index, "codes"), offer.codes, root)
    return problems


def _engine_references(document: Document | None, engine: EngineConfig | None, root: Path) -> list[Problem]:
    if engine is None or document is None:
        return []
    problems = []
    for index, entry in enumerate(engine.suppression_lists):
        problems += _file(document, ("suppression_lists", index, "file"), entry.file, root)
    for place, name in _workspace_places(engine):
        problems += _file(document, place, name, root)
    return [*problems, *unknown_channels(document, engine), *_url_problems(document, engine)]


def _url_problems(document: Document, engine: EngineConfig) -> list[Problem]:
    """A problem for each workspace whose url cannot be called; {retailer} is tried with the workspace's own name."""
    problems = []
    for retailer, workspace in engine.workspaces.items():
        if workspace.url and engine.delivery.vendor != "outbox":
            url = filled_url(workspace.url, "retailer" if retailer == "*" else retailer)
            if problem := url_problem(url):
                problems.append(document.problem(("workspaces", retailer, "url"), without_user(workspace.url), problem))
    return problems


def _cycles(files: dict[str, Document]) -> list[Problem]:
    """A problem for each named audience that contains itself."""
    uses = {name: _uses(document) for name, document in files.items()}
    problems = []
    for name, document in files.items():
        reached, frontier = set[str](), set(uses[name])
        while frontier:
            reached |= frontier
            frontier = {deeper for used in frontier for deeper in uses.get(used, ())} - reached
        if name in reached:
            fix = "contains itself, directly or through another audience"
            problems.append(document.problem(("audience",), name, fix))
    return problems
