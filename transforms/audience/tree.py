"""An audience as a tree of masks: who entered each node, who passed, counted on the way."""

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
    """What a mask is made from: an SQL text, or a list file and the customers' column looked up in it."""

    sql: str = ""
    file: str = ""
    column: str = ""


@dataclass(frozen=True)
class Tree:
    """A node: `kind` is all, any, not, audience, sql, list or retailers; only sql and list have a leaf.

    `place` is where it is written, such as `audience.all.1`, after its file where that is not the campaign's.
    """

    kind: str
    label: str
    children: tuple[Tree, ...] = ()
    leaf: Leaf | None = None
    place: str = "audience"

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


def is_too_deep(node: Node, audiences: Mapping[str, Node]) -> bool:
    """Whether an audience, named audiences unfolded, has more than MAX_LEVELS levels: a plan of so many cannot be sent
    to workers."""
    level: list[tuple[Node, tuple[str, ...]]] = [(node, ())]
    for _ in range(MAX_LEVELS):
        below: list[tuple[Node, tuple[str, ...]]] = []
        for one, inside in level:
            if isinstance(one, Named):
                if one.audience in audiences and one.audience not in inside:
                    below.append((audiences[one.audience], (*inside, one.audience)))
            elif isinstance(one, Not):
                below.append((one.not_, inside))
            elif isinstance(one, AllOf | AnyOf):
                below += [(child, inside) for child in (one.all if isinstance(one, AllOf) else one.any)]
        level = below
    return bool(level)


def compile_tree(
    node: Node, audiences: Mapping[str, Node], place: str = "audience", inside: tuple[str, ...] = ()
) -> Tree:
    """The tree of an audience, named audiences unfolded.

    One that is missing or contains itself (a problem of the configuration) has no children here. `inside` are the
    named audiences around the node.
    """
    if isinstance(node, str):
        return Tree("sql", node, leaf=Leaf(sql=node), place=place)
    if isinstance(node, InList):
        return Tree("list", f"{node.column} in {node.list}", leaf=Leaf(file=node.list, column=node.column), place=place)
    if isinstance(node, Named):
        name = node.audience
        found = name in audiences and name not in inside
        below = f"audiences/{name}.yaml: audience"
        children = (compile_tree(audiences[name], audiences, below, (*inside, name)),) if found else ()
        return Tree("audience", name, children, place=place)
    if isinstance(node, Not):
        return Tree("not", "not", (compile_tree(node.not_, audiences, f"{place}.not", inside),), place=place)
    kind, nodes = ("all", node.all) if isinstance(node, AllOf) else ("any", node.any)
    compiled = [compile_tree(child, audiences, f"{place}.{kind}.{n}", inside) for n, child in enumerate(nodes)]
    return Tree(kind, kind, tuple(compiled), place=place)


def campaign_tree(audience: Node, audiences: Mapping[str, Node], scope: str) -> Tree:
    """A campaign's whole tree: first the retailers it is for, then its audience."""
    tree = compile_tree(audience, audiences)
    children = tree.children if tree.kind == "all" else (tree,)
    return Tree("all", "all", (Tree("retailers", scope, place="retailers"), *children))


class Masks(NamedTuple):
    """The batch's answers: a mask a leaf, and for a leaf that raised errors the rows that did."""

    passed: Mapping[Leaf, Mask]
    failed: Mapping[Leaf, Mask]


class Match(NamedTuple):
    """What a tree makes of a batch: the rows that pass, the counts of its nodes in the order of `Tree.nodes`, and
    by the number of a node whose condition raised errors the first row that it did for."""

    passed: Mask
    counts: list[NodeCount]
    failed: dict[int, int]


def match(tree: Tree, scope: Mask, masks: Masks) -> Match:
    """The rows that pass a campaign's tree. A row whose condition raised an error does not pass at that node, nor
    through a `not` around it: nobody is contacted because of an error."""
    walk = _Walk(scope, masks)
    passed, _ = walk.passes(tree, np.ones(len(scope), dtype=np.bool_))
    return Match(passed, walk.counts, walk.failed)


class _Walk:
    def __init__(self, scope: Mask, masks: Masks) -> None:
        self._scope, self._masks = scope, masks
        self.counts: list[NodeCount] = []
        self.failed: dict[int, int] = {}

    def passes(self, tree: Tree, entered: Mask) -> tuple[Mask, Mask | None]:
        """Of the rows that enter a node those that pass, and those of which an error leaves it open."""
        place = len(self.counts)
        self.counts.append(NodeCount(0, 0, 0))
        failed, doubt = 0, None
        if tree.leaf is not None:
            passed = entered & self._masks.passed[tree.leaf]
            if tree.leaf in self._masks.failed:
                doubt = entered & self._masks.failed[tree.leaf]
                if failed := int(np.count_nonzero(doubt)):
                    self.failed[place] = int(np.argmax(doubt))
        elif tree.kind == "retailers":
            passed = entered & self._scope
        elif tree.kind == "not":
            inner, doubt = self.passes(tree.children[0], entered)
            passed = entered & ~inner if doubt is None else entered & ~inner & ~doubt
        elif tree.kind == "any":
            passed, doubt = self._any(tree, entered)
        else:
            passed = entered
            for child in tree.children:
                passed, open_ = self.passes(child, passed)
                doubt = _either(doubt, open_)
        self.counts[place] = NodeCount(int(np.count_nonzero(entered)), int(np.count_nonzero(passed)), failed)
        return passed, doubt

    def _any(self, tree: Tree, entered: Mask) -> tuple[Mask, Mask | None]:
        passed, left, doubt = np.zeros_like(entered), entered, None
        for child in tree.children:
            found, open_ = self.passes(child, left)
            passed, left, doubt = passed | found, left & ~found, _either(doubt, open_)
        return passed, None if doubt is None else doubt & ~passed


def _either(one: Mask | None, other: Mask | None) -> Mask | None:
    return other if one is None else one if other is None else one | other


def counted(tree: Tree, counts: list[NodeCount]) -> dict[str, Any]:
    """The tree with its counts as the nested dictionaries of summary.json."""
    return _counted(tree, iter(counts))


def _counted(tree: Tree, counts: Iterator[NodeCount]) -> dict[str, Any]:
    own = next(counts)
    children = [_counted(child, counts) for child in tree.children]
    return {"kind": tree.kind, "label": tree.label, **own._asdict(), "children": children}
