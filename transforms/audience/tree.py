"""compile_tree and match: an audience as a tree, the rows that pass it, and the counts of each node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.campaigns.audience import AllOf, AnyOf, InList, Named, Node, Not

Mask = npt.NDArray[np.bool_]
MAX_LEVELS = 50
"""Levels of an audience, named audiences unfolded."""


class Leaf(NamedTuple):
    """The source of a mask: an SQL condition, or a list file and the customers' column that is looked up in it."""

    sql: str = ""
    file: str = ""
    column: str = ""


@dataclass(frozen=True)
class Tree:
    """A node: `kind` is all, any, not, audience, sql, list or retailers; only sql and list have a leaf.

    `place` is its path in the file, such as `audience.all.1`; after the file's name where that is not the campaign's.
    """

    kind: str
    label: str
    children: tuple[Tree, ...] = ()
    leaf: Leaf | None = None
    place: str = "audience"

    def nodes(self) -> Iterator[Tree]:
        """This node and all below it, parents first; counts are in this order."""
        yield self
        for child in self.children:
            yield from child.nodes()


class NodeCount(NamedTuple):
    """The customers that entered a node, that passed it, and for which its condition raised an error."""

    entered: int
    passed: int
    failed: int


def is_too_deep(node: Node, audiences: Mapping[str, Node]) -> bool:
    """Whether an audience has more than MAX_LEVELS levels. A deeper plan cannot be sent to workers."""
    level: list[tuple[Node, tuple[str, ...]]] = [(node, ())]
    for _ in range(MAX_LEVELS):
        below: list[tuple[Node, tuple[str, ...]]] = []
        for parent, inside in level:
            if isinstance(parent, Named):
                if parent.audience in audiences and parent.audience not in inside:
                    below.append((audiences[parent.audience], (*inside, parent.audience)))
            elif isinstance(parent, Not):
                below.append((parent.not_, inside))
            elif isinstance(parent, AllOf | AnyOf):
                below += [(child, inside) for child in (parent.all if isinstance(parent, AllOf) else parent.any)]
        level = below
    return bool(level)


def compile_tree(
    node: Node, audiences: Mapping[str, Node], place: str = "audience", inside: tuple[str, ...] = ()
) -> Tree:
    """The tree of an audience, named audiences unfolded.

    A named audience that is missing or contains itself (a Problem of the configuration) has no children. `inside` are
    the named audiences around the node.
    """
    if isinstance(node, str):
        return Tree("sql", node, leaf=Leaf(sql=node), place=place)
    if isinstance(node, InList):
        return Tree("list", f"{node.column} in {node.list}", leaf=Leaf(file=node.list, column=node.column), place=place)
    if isinstance(node, Named):
        name = node.audience
        valid = name in audiences and name not in inside
        below = f"audiences/{name}.yaml: audience"
        children = (compile_tree(audiences[name], audiences, below, (*inside, name)),) if valid else ()
        return Tree("audience", name, children, place=place)
    if isinstance(node, Not):
        return Tree("not", "not", (compile_tree(node.not_, audiences, f"{place}.not", inside),), place=place)
    kind, nodes = ("all", node.all) if isinstance(node, AllOf) else ("any", node.any)
    compiled = [compile_tree(child, audiences, f"{place}.{kind}.{n}", inside) for n, child in enumerate(nodes)]
    return Tree(kind, kind, tuple(compiled), place=place)


def campaign_tree(audience: Node, audiences: Mapping[str, Node], scope: str) -> Tree:
    """The tree of a campaign: first its retailers, then its audience."""
    tree = compile_tree(audience, audiences)
    children = tree.children if tree.kind == "all" else (tree,)
    return Tree("all", "all", (Tree("retailers", scope, place="retailers"), *children))


class Masks(NamedTuple):
    """By leaf, the rows that pass it; and the rows that raised an error, where some did."""

    passed: Mapping[Leaf, Mask]
    failed: Mapping[Leaf, Mask]


class Match(NamedTuple):
    """The rows of a batch that pass a tree, and the counts of its nodes in the order of `Tree.nodes`. `failed` is, by
    the number of a node whose condition raised errors, the first such row."""

    passed: Mask
    counts: list[NodeCount]
    failed: dict[int, int]


def match(tree: Tree, scope: Mask, masks: Masks) -> Match:
    """The rows that pass a campaign's tree. A row for which a condition raised an error passes neither that node nor a
    `not` around it: nobody is contacted because of an error."""
    walk = _Walk(scope, masks)
    passed, _ = walk.passes(tree, np.ones(len(scope), dtype=np.bool_))
    return Match(passed, walk.counts, walk.failed)


class _Walk:
    def __init__(self, scope: Mask, masks: Masks) -> None:
        self._scope, self._masks = scope, masks
        self.counts: list[NodeCount] = []
        self.failed: dict[int, int] = {}

    def passes(self, tree: Tree, entered: Mask) -> tuple[Mask, Mask | None]:
        """The rows of those entered that pass a node; and those that an error leaves undecided, None for none."""
        place = len(self.counts)
        self.counts.append(NodeCount(0, 0, 0))
        failed, undecided = 0, None
        if tree.leaf is not None:
            passed = entered & self._masks.passed[tree.leaf]
            if tree.leaf in self._masks.failed:
                undecided = entered & self._masks.failed[tree.leaf]
                if failed := int(np.count_nonzero(undecided)):
                    self.failed[place] = int(np.argmax(undecided))
        elif tree.kind == "retailers":
            passed = entered & self._scope
        elif tree.kind == "not":
            inner, undecided = self.passes(tree.children[0], entered)
            passed = entered & ~inner if undecided is None else entered & ~inner & ~undecided
        elif tree.kind == "any":
            passed, undecided = self._any(tree, entered)
        else:
            passed = entered
            for child in tree.children:
                passed, more = self.passes(child, passed)
                undecided = _union(undecided, more)
        self.counts[place] = NodeCount(int(np.count_nonzero(entered)), int(np.count_nonzero(passed)), failed)
        return passed, undecided

    def _any(self, tree: Tree, entered: Mask) -> tuple[Mask, Mask | None]:
        passed, rest, undecided = np.zeros_like(entered), entered, None
        for child in tree.children:
            rows, more = self.passes(child, rest)
            passed, rest, undecided = passed | rows, rest & ~rows, _union(undecided, more)
        return passed, None if undecided is None else undecided & ~passed


def _union(a: Mask | None, b: Mask | None) -> Mask | None:
    return b if a is None else a if b is None else a | b


def tree_summary(tree: Tree, counts: Iterator[NodeCount]) -> dict[str, Any]:
    """The tree with its counts, taken in the order of `Tree.nodes`, as the nested dictionaries of summary.json."""
    count = next(counts)
    children = [tree_summary(child, counts) for child in tree.children]
    return {"kind": tree.kind, "label": tree.label, **count._asdict(), "children": children}
