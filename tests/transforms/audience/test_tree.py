from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from schemas.campaigns.audience import Node
from transforms.audience.tree import Leaf, Mask, Masks, campaign_tree, compile_tree, match, tree_summary

ROWS = 16
LEAVES = ["a", "b", "c"]


def node(raw: Any) -> Any:
    return TypeAdapter(Node).validate_python(raw)


def masks(**passed: list[int]) -> Masks:
    found = {Leaf(sql=name): np.isin(np.arange(ROWS), rows) for name, rows in passed.items()}
    return Masks(found, {})


def oracle(raw: Any, truth: dict[str, bool]) -> bool:
    if isinstance(raw, str):
        return truth[raw]
    ((key, child),) = raw.items()
    if key == "not":
        return not oracle(child, truth)
    return (all if key == "all" else any)(oracle(one, truth) for one in child)


trees = st.recursive(
    st.sampled_from(LEAVES),
    lambda child: st.one_of(
        st.fixed_dictionaries({"all": st.lists(child, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"any": st.lists(child, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"not": child}),
    ),
    max_leaves=10,
)


@given(trees, st.lists(st.tuples(*[st.booleans()] * len(LEAVES)), min_size=ROWS, max_size=ROWS))
def test_a_tree_passes_whom_the_logic_passes(raw: Any, rows: list[tuple[bool, ...]]) -> None:
    tree = campaign_tree(node(raw), {}, "all")
    given_masks: dict[Leaf, Mask] = {
        Leaf(sql=name): np.array([row[index] for row in rows]) for index, name in enumerate(LEAVES)
    }
    passed, counts, _ = match(tree, np.ones(ROWS, np.bool_), Masks(given_masks, {}))
    wanted = [oracle(raw, dict(zip(LEAVES, row, strict=True))) for row in rows]
    assert passed.tolist() == wanted
    assert len(counts) == len(list(tree.nodes()))
    assert all(count.entered >= count.passed for count in counts)


def test_a_child_of_all_sees_only_what_the_ones_before_passed() -> None:
    tree = compile_tree(node({"all": ["a", "b"]}), {})
    _, counts, _ = match(tree, np.ones(ROWS, np.bool_), masks(a=[0, 1, 2], b=[1, 2, 9]))
    assert [(count.entered, count.passed) for count in counts] == [(16, 2), (16, 3), (3, 2)]


def test_a_child_of_any_sees_only_what_the_ones_before_did_not_pass() -> None:
    tree = compile_tree(node({"any": ["a", "b"]}), {})
    passed, counts, _ = match(tree, np.ones(ROWS, np.bool_), masks(a=[0, 1, 2], b=[1, 2, 9]))
    assert np.flatnonzero(passed).tolist() == [0, 1, 2, 9]
    assert [(count.entered, count.passed) for count in counts] == [(16, 4), (16, 3), (13, 1)]


def test_named_audiences_are_unfolded_and_the_scope_comes_first() -> None:
    tree = campaign_tree(node({"all": [{"not": {"audience": "lost"}}, "a"]}), {"lost": node("b")}, "every retailer")
    assert [one.kind for one in tree.nodes()] == ["all", "retailers", "not", "audience", "sql", "sql"]
    scope = np.arange(ROWS) < 4
    passed, counts, _ = match(tree, scope, masks(a=[0, 1, 8], b=[1]))
    assert np.flatnonzero(passed).tolist() == [0]
    shown = tree_summary(tree, iter(counts))
    assert shown["children"][0] == {
        "kind": "retailers",
        "label": "every retailer",
        "entered": 16,
        "passed": 4,
        "failed": 0,
        "children": [],
    }
    assert shown["passed"] == 1


def test_rows_whose_condition_raised_an_error_are_counted_where_they_entered() -> None:
    tree = compile_tree(node({"all": ["a", "b"]}), {})
    failed = {Leaf(sql="b"): np.isin(np.arange(ROWS), [2, 5])}
    given_masks = masks(a=[0, 1, 2], b=[0])
    _, counts, _ = match(tree, np.ones(ROWS, np.bool_), Masks(given_masks.passed, failed))
    assert [count.failed for count in counts] == [0, 0, 1]
