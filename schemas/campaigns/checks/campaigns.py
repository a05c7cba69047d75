"""Checks of a folder of campaigns: files that are not read, and ids and code lists that two campaigns share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from schemas.campaigns.campaign import Campaign
from schemas.campaigns.engine import EngineConfig
from schemas.campaigns.yaml_files import Document
from schemas.problems import Problem


def duplicate_ids(campaigns: list[tuple[Document, Campaign]]) -> list[Problem]:
    """A problem for each campaign with the id of an earlier one."""
    first: dict[str, str] = {}
    problems = []
    for document, campaign in campaigns:
        other = first.setdefault(campaign.id, document.file)
        if other != document.file:
            problems.append(document.problem(("id",), campaign.id, f"is the id of {other} too; ids are unique"))
    return problems


def shared_codes(campaigns: list[tuple[Document, Campaign]], root: Path) -> list[Problem]:
    """A problem for each offer whose code list another offer hands out too: both would begin with its first code."""
    first: dict[Path, str] = {}
    problems = []
    for document, campaign in campaigns:
        for index, offer in enumerate(campaign.offers):
            if offer.codes is None:
                continue
            name = f"{campaign.id}/{offer.id}"
            other = first.setdefault((root / offer.codes).resolve(), name)
            fix = f"the offer {other} hands out these codes too: two customers would get each; write a list for each"
            if other != name:
                problems.append(document.problem(("offers", index, "codes"), offer.codes, fix))
    return problems


def unknown_channels(document: Document, engine: EngineConfig) -> list[Problem]:
    """A problem for each suppression list and each cap of a channel that engine.yaml does not have."""
    fix = f"is no channel of this file; it has: {', '.join(engine.channels)}"
    rules = [("suppression_lists", index, rule.channel) for index, rule in enumerate(engine.suppression_lists)]
    rules += [("caps", index, cap.channel) for index, cap in enumerate(engine.caps)]
    return [
        document.problem((name, index, "channel"), channel, fix)
        for name, index, channel in rules
        if channel is not None and channel not in engine.channels
    ]


def unread_files(root: Path) -> list[Problem]:
    """A problem for each .yml file, and for each YAML file in a folder that is not read."""
    fix = "would not be read: name it .yaml, or move it out of this folder"
    unread = [
        _problem(root, path, ".yml", fix) for path in sorted([*root.glob("*.yml"), *root.glob("audiences/*.yml")])
    ]
    fix = f"would not be read: move it to {root.name}/ itself (an audience to {root.name}/audiences/), or out of there"
    return [*unread, *(_problem(root, path, "in a folder below", fix) for path in _files_below(root))]


def _problem(root: Path, path: Path, value: str, fix: str) -> Problem:
    return Problem(path.relative_to(root).as_posix(), "", value, fix)


def _files_below(root: Path) -> Iterator[Path]:
    """The YAML files one or two folders below that are no audiences, hidden, or of another folder of campaigns."""
    for pattern in ("*/*.yaml", "*/*.yml", "*/*/*.yaml", "*/*/*.yml"):
        for path in sorted(root.glob(pattern)):
            name = path.relative_to(root)
            folders = [folder for folder in name.parents if folder.name]
            if name.parent.as_posix() == "audiences" or any(folder.name.startswith(".") for folder in folders):
                continue
            if not any((root / folder / "engine.yaml").exists() for folder in folders):
                yield path
