"""An audience as a tree of masks: who entered each node, who passed, counted on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.audience import AllOf, InList, Named, Node, Not

Mask = npt.NDArray[np.bool_]


class Leaf(NamedTuple):
    """What a mask is made from: an SQL text, or a list file and the customers' column looked up in it."""

    sql: str = ""
    file: str = ""
    column: str = ""


@dataclass(frozen=True)
class Tree:
    """A node: `kind` is all, any, not, audience, sql, list or retailers; only sql and list have a leaf."""

    kind: str
    label: str
    children: tuple[Tree, ...] = ()
    leaf: Leaf | None = None

    def nodes(self) -> Iterator[Tree]:
        """This node and all below it, parents first: the order of the counts."""
        yield self
        for child in self.children:
            yield from child.nodes()


class NodeCount(NamedTuple):
    """Customers that entered a node, passed it, and for whom its condition raised an error."""

    entered: int
    passed: int
    failed: int


def compile_tree(node: Node, audiences: Mapping[str, Node]) -> Tree:
    """The tree of an audience, named audiences unfolded (they are known to be without cycles)."""
    if isinstance(node, str):
        return Tree("sql", node, leaf=Leaf(sql=node))
    if isinstance(node, InList):
        return Tree("list", f"{node.column} in {node.list}", leaf=Leaf(file=node.list, column=node.column))
    if isinstance(node, Named):
        return Tree("audience", node.audience, (compile_tree(audiences[node.audience], audiences),))
    if isinstance(node, Not):
        return Tree("not", "not", (compile_tree(node.not_, audiences),))
    kind, children = ("all", node.all) if isinstance(node, AllOf) else ("any", node.any)
    return Tree(kind, kind, tuple(compile_tree(child, audiences) for child in children))


def campaign_tree(audience: Node, audiences: Mapping[str, Node], scope: str) -> Tree:
    """A campaign's whole tree: first the retailers it is for, then its audience."""
    tree = compile_tree(audience, audiences)
    children = tree.children if tree.kind == "all" else (tree,)
    return Tree("all", "all", (Tree("retailers", scope), *children))


class Masks(NamedTuple):
    """The batch's answers: a mask a leaf, and for a leaf that raised errors the rows that did."""

    passed: Mapping[Leaf, Mask]
    failed: Mapping[Leaf, Mask]


def match(tree: Tree, scope: Mask, masks: Masks) -> tuple[Mask, list[NodeCount]]:
    """The rows that pass a campaign's tree, and the counts of its nodes in the order of `Tree.nodes`."""
    counts: list[NodeCount] = []
    passed = _pass(tree, np.ones(len(scope), dtype=np.bool_), scope, masks, counts)
    return passed, counts


def _pass(tree: Tree, entered: Mask, scope: Mask, masks: Masks, counts: list[NodeCount]) -> Mask:
    place = len(counts)
    counts.append(NodeCount(0, 0, 0))
    failed = 0
    if tree.leaf is not None:
        passed = entered & masks.passed[tree.leaf]
        if tree.leaf in masks.failed:
            failed = int(np.count_nonzero(entered & masks.failed[tree.leaf]))
    elif tree.kind == "retailers":
        passed = entered & scope
    elif tree.kind == "not":
        passed = entered & ~_pass(tree.children[0], entered, scope, masks, counts)
    elif tree.kind == "any":
        passed, left = np.zeros_like(entered), entered
        for child in tree.children:
            found = _pass(child, left, scope, masks, counts)
            passed, left = passed | found, left & ~found
    else:
        passed = entered
        for child in tree.children:
            passed = _pass(child, passed, scope, masks, counts)
    counts[place] = NodeCount(int(np.count_nonzero(entered)), int(np.count_nonzero(passed)), failed)
    return passed


def counted(tree: Tree, counts: list[NodeCount]) -> dict[str, Any]:
    """The tree with its counts as the nested dictionaries of summary.json."""
    return _counted(tree, iter(counts))


def _counted(tree: Tree, counts: Iterator[NodeCount]) -> dict[str, Any]:
    own = next(counts)
    children = [_counted(child, counts) for child in tree.children]
    return {"kind": tree.kind, "label": tree.label, **own._asdict(), "children": children}
