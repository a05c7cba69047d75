"""Warnings about the nodes of an audience that nobody passes or reaches."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from schemas.problems import plural
from transforms.audience.tree import NodeCount, Tree
from transforms.launch_plan import CampaignPlan
from transforms.warnings.warning import LaunchWarning

Warn = Callable[[str, Tree, int, str], LaunchWarning]


def node_warnings(entry: CampaignPlan, counts: list[NodeCount]) -> Iterator[LaunchWarning]:
    """A warning for each outermost node that nobody passes or reaches; none for the nodes that follow from it."""
    places = iter(counts)
    by_node = {id(node): next(places) for node in entry.tree.nodes()}
    matched = counts[0].passed

    def warn(kind: str, node: Tree, count: int, text: str) -> LaunchWarning:
        file, _, field = node.place.rpartition(": ")
        ending = "" if matched else " So the campaign matches nobody."
        return LaunchWarning(kind, entry.campaign.id, file or entry.file, field, node.label, count, "", text + ending)

    scope, *nodes = entry.tree.children
    if not by_node[id(scope)].passed:
        return
    for node in nodes:
        yield from _node(node, by_node, warn)


def _node(node: Tree, counts: dict[int, NodeCount], warn: Warn) -> Iterator[LaunchWarning]:
    count = counts[id(node)]
    if not count.entered:
        return
    entered = plural(count.entered, "customer")
    if node.kind == "audience" and not count.passed:
        text = f"None of the {entered} that come here is in the audience {node.label}. Check its conditions."
        yield warn("audience_matches_nobody", node, count.entered, text)
        return
    if node.leaf is not None and not count.passed:
        what = "is on this list" if node.kind == "list" else "meets this condition"
        text = f"None of the {entered} that come here {what}. Check it against the column's values, or remove it."
        yield warn("node_matches_nobody", node, count.entered, text)
    if node.kind == "not" and not count.passed:
        text = f"This excludes all of the {entered} that come here. Check what is below it."
        yield warn("node_matches_nobody", node, count.entered, text)
        return
    for child in node.children:
        if node.kind == "any" and not counts[id(child)].entered:
            text = f"Nobody comes here: all {entered} pass one of the nodes before it. Remove it, or those."
            yield warn("node_not_reached", child, count.entered, text)
            return
        yield from _node(child, counts, warn)
