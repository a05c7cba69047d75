"""EvaluateAudience: validates the customers of a batch and finds those that each campaign matches, in one pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from schemas.columns.ids import id_texts
from schemas.columns.masks import to_mask
from schemas.elements import Bools, CampaignRows, CustomerBatch, Ints, LaunchBatch
from transforms.audience.attempts import ROW_ERRORS, Attempts
from transforms.audience.conditions import LAUNCHED_AT, TABLE, open_connection
from transforms.audience.tree import Leaf, Mask, Masks, Match, match
from transforms.columnar.list_index import ListIndex, ReadList
from transforms.columnar.steps import MapBatches
from transforms.customers.validate_customers import validate_customers
from transforms.launch_plan import CampaignPlan, Plan
from transforms.warnings.evidence import Evidence, list_use

ReadDuplicates = Callable[[], Mapping[str, Ints]]
_ARROW_TYPES = {"BOOLEAN": pa.bool_(), "BIGINT": pa.int64(), "DOUBLE": pa.float64(), "VARCHAR": pa.string()}


class EvaluateAudience(MapBatches):
    """LaunchBatches with the matched rows of each campaign; rows that are no customers become dead letters.

    `read_list` reads the ids of a list file, `read_duplicates` the rows to refuse by batch name; both are called once
    a worker.
    """

    input_type = CustomerBatch

    def __init__(self, plan: Plan, read_list: ReadList, read_duplicates: ReadDuplicates) -> None:
        super().__init__("audience", partial(make_evaluator, plan, read_list, read_duplicates))


def make_evaluator(
    plan: Plan, read_list: ReadList, read_duplicates: ReadDuplicates = dict
) -> Callable[[CustomerBatch], LaunchBatch]:
    """`evaluate_audience` of a plan, with its lists read and indexed."""
    return partial(evaluate_audience, plan, Evaluator(plan, read_list), read_duplicates())


def evaluate_audience(
    plan: Plan, evaluator: Evaluator, duplicates: Mapping[str, Ints], customers: CustomerBatch
) -> LaunchBatch:
    """The batch with the matched rows of each campaign, retailer by retailer.

    `duplicates` are the rows to refuse, by batch name. Counts `nodes` (the customers of each node of each audience),
    `evidence` (expressions that were NULL or raised an error) and `lists` (the use of each list).
    """
    batch = validate_customers(plan, duplicates.get(customers.name), customers)
    answers = evaluator.evaluate(batch.rows)
    evidence = Evidence()
    scopes: dict[tuple[bool, ...], Mask] = {}
    ids = id_texts(batch.rows.column(plan.engine.columns.customer)).cast(pa.string())
    retailers = pa.DictionaryArray.from_arrays(
        pa.array(batch.retailer, pa.int32()), pa.array(batch.retailers, pa.string())
    )
    campaigns, nodes = [], {}
    for entry in plan.campaigns:
        covered = tuple(entry.covers(retailer) for retailer in batch.retailers)
        if covered not in scopes:
            scopes[covered] = np.array(covered, np.bool_)[batch.retailer]
        result = match(entry.tree, scopes[covered], answers.masks)
        rows = np.flatnonzero(result.passed)
        _note_failures(evidence, entry, evaluator, batch, result)
        _note_values(evidence, entry, evaluator, batch, answers, rows)
        rows = rows[np.argsort(batch.retailer[rows], kind="stable")]
        places = pa.array(rows)
        campaigns.append(CampaignRows.of(entry.campaign.id, rows, ids.take(places), retailers.take(places)))
        nodes[entry.campaign.id] = result.counts
    lists = [
        list_use(leaf.file, leaf.column, evaluator.lists[leaf.file, leaf.column], places)
        for leaf, places in answers.places.items()
    ]
    return replace(
        batch.with_counts(nodes=nodes, evidence=evidence.rows(), lists=lists),
        campaigns=campaigns,
        values=answers.values,
        offer_conditions={text: answers.masks.passed[Leaf(sql=text)] for text in plan.offer_conditions},
    )


class Answers(NamedTuple):
    """The evaluated expressions of a batch: a mask for each leaf and condition, a column for each property.

    `places` are the positions of each row's id in each list (-1: not in it). `unknown` are, by the SQL of an offer's
    condition, the rows for which it is NULL; `failed`, by SQL, the rows for which it raised an error.
    """

    masks: Masks
    places: dict[Leaf, Ints]
    values: dict[str, pa.Array]
    unknown: dict[str, Mask]
    failed: dict[str, Mask]


class Evaluator:
    """Evaluates the conditions and properties of a plan over record batches; an error concerns only its row.

    The plan's lists are read and indexed once, when the evaluator is made.
    """

    def __init__(self, plan: Plan, read_list: ReadList) -> None:
        self._plan = plan
        self.customer = plan.engine.columns.customer
        self._con = open_connection()
        self._conditions = list(
            dict.fromkeys([*(leaf.sql for leaf in plan.leaves if leaf.sql), *plan.offer_conditions])
        )
        self._computed = [text for text in plan.values if text not in plan.columns or plan.values[text] == "VARCHAR"]
        lists = dict.fromkeys((leaf.file, leaf.column) for leaf in plan.leaves if leaf.file)
        self.lists = {(file, column): ListIndex(read_list(file, column), column, plan.engine) for file, column in lists}
        launched = plan.launched.strftime("%Y-%m-%d %H:%M:%S.%f")
        column = f", TIMESTAMP '{launched}' AS {LAUNCHED_AT}"
        self._source = f"(SELECT *{column} FROM {TABLE})"  # noqa: S608
        self._attempts = Attempts(column)

    def evaluate(self, rows: pa.RecordBatch) -> Answers:
        """The answers for one batch."""
        expressions = [_cast(text, "BOOLEAN") for text in self._conditions]
        expressions += [_cast(text, self._plan.values[text]) for text in self._computed]
        failed: dict[str, Mask] = {}
        table = _without_built_ins(rows)
        self._con.register(TABLE, table)
        try:
            arrays = self._query(expressions)
        except ROW_ERRORS:
            arrays, failed = self._query_each(table, expressions)
        finally:
            self._con.unregister(TABLE)
        split = len(self._conditions)
        answers = dict(zip(self._conditions, arrays[:split], strict=True))
        passed = {Leaf(sql=text): to_mask(array) for text, array in answers.items()}
        places = {
            leaf: self.lists[leaf.file, leaf.column].find(rows.column(leaf.column))
            for leaf in self._plan.leaves
            if leaf.file
        }
        passed |= {leaf: list_places >= 0 for leaf, list_places in places.items()}
        unknown = {text: _nulls(answers[text], failed.get(text)) for text in self._plan.offer_conditions}
        values = dict(zip(self._computed, arrays[split:], strict=True))
        columns = {text: rows.column(text) for text in self._plan.values if text not in values}
        failed_leaves = {Leaf(sql=text): mask for text, mask in failed.items() if text in answers}
        return Answers(Masks(passed, failed_leaves), places, values | columns, unknown, failed)

    def reason(self, rows: pa.RecordBatch, row: int, text: str) -> str:
        """The error that an expression raises for a row."""
        expression = _cast(text, self._plan.values.get(text, "BOOLEAN"))
        return self._attempts.reason(_without_built_ins(rows.slice(row, 1)), expression)

    def _query(self, expressions: list[str]) -> list[pa.Array]:
        if not expressions:
            return []
        named = ", ".join(f"{text} AS c{index}" for index, text in enumerate(expressions))
        table = self._con.sql(f"SELECT {named} FROM {self._source}").to_arrow_table()  # noqa: S608
        return [column.combine_chunks() for column in table.columns]

    def _query_each(self, table: pa.Table, expressions: list[str]) -> tuple[list[pa.Array], dict[str, Mask]]:
        """The same columns, expression by expression, after a row made one of them fail; and the failed rows by SQL."""
        arrays: list[pa.Array] = []
        failed: dict[str, Mask] = {}
        kinds = [pa.bool_()] * len(self._conditions)
        kinds += [_ARROW_TYPES[self._plan.values[text]] for text in self._computed]
        for text, expression, kind in zip([*self._conditions, *self._computed], expressions, kinds, strict=True):
            array, mask = self._attempts.values(table, expression, kind)
            arrays.append(array)
            if mask.any():
                failed[text] = failed[text] | mask if text in failed else mask
        return arrays, failed


def _cast(text: str, sql_type: str) -> str:
    """The SQL as a type. It stands on lines of its own, so that a comment in it ends before the closing bracket."""
    return f"CAST((\n{text}\n) AS {sql_type})"


def _without_built_ins(rows: pa.RecordBatch) -> pa.Table:
    """The columns that conditions read: without one named `launched_at`, which is the time of the launch."""
    return pa.Table.from_batches([rows]).select([name for name in rows.schema.names if name.lower() != LAUNCHED_AT])


def _nulls(array: pa.Array, failed: Mask | None = None) -> Bools:
    """The rows without a value that did not fail."""
    nulls = to_mask(array.is_null()) if array.null_count else np.zeros(len(array), np.bool_)
    return nulls if failed is None else nulls & ~failed


def _note_failures(
    evidence: Evidence, entry: CampaignPlan, evaluator: Evaluator, batch: LaunchBatch, result: Match
) -> None:
    """Note the nodes whose condition raised an error, with an example."""
    nodes = list(entry.tree.nodes()) if result.failed else []
    for place, row in result.failed.items():
        node, customer = nodes[place], str(batch.rows.column(evaluator.customer)[row])
        reason = evaluator.reason(batch.rows, row, node.label)
        count = result.counts[place].failed
        evidence.add("condition_failed", entry.campaign.id, node.place, node.label, count, customer, reason)


def _note_values(
    evidence: Evidence, entry: CampaignPlan, evaluator: Evaluator, batch: LaunchBatch, answers: Answers, rows: Ints
) -> None:
    """Note the properties and offer conditions that are NULL or raised an error for matched customers."""
    properties = entry.campaign.content.properties.items()
    places = [("property", f"content.properties.{name}", text) for name, text in properties]
    offers = enumerate(entry.campaign.offers)
    places += [("when", f"offers.{index}.when", offer.when) for index, offer in offers if offer.when]
    for kind, field, text in places:
        failed = answers.failed.get(text)
        nulls = answers.unknown[text] if kind == "when" else None
        if nulls is None and answers.values[text].null_count:
            nulls = _nulls(answers.values[text], failed)
        for event, mask in (("failed", failed), ("null", nulls)):
            if mask is not None and (count := int(np.count_nonzero(mask[rows]))):
                row = int(rows[np.argmax(mask[rows])])
                reason = evaluator.reason(batch.rows, row, text) if event == "failed" else ""
                customer = str(batch.rows.column(evaluator.customer)[row])
                evidence.add(f"{kind}_{event}", entry.campaign.id, field, text, count, customer, reason)
