"""What no two campaigns of a folder may share: an id, a code list."""

from __future__ import annotations

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
            if (other := first.setdefault((root / offer.codes).resolve(), name)) != name:
                fix = (
                    f"the offer {other} hands out these codes too: two customers would get each; write a list for each"
                )
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
