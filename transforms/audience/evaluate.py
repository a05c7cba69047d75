"""EvaluateAudience: which customers of a batch match which campaign, all campaigns in one pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from schemas.columns.ids import id_texts
from schemas.columns.masks import to_mask
from schemas.elements import Bools, CampaignRows, CustomerBatch, Ints, LaunchBatch
from transforms.audience.attempts import ROW_ERRORS, Attempts
from transforms.audience.conditions import LAUNCHED_AT, TABLE, open_connection
from transforms.audience.tree import Leaf, Mask, Masks, Match, match
from transforms.columnar.list_index import ListIndex
from transforms.columnar.steps import BatchStep
from transforms.customers.validate_customers import accept
from transforms.plan import CampaignPlan, Plan
from transforms.warnings.evidence import Evidence, list_use

_ARROW = {"BOOLEAN": pa.bool_(), "BIGINT": pa.int64(), "DOUBLE": pa.float64(), "VARCHAR": pa.string()}


class Evaluated(NamedTuple):
    """The answers of a batch: a mask a leaf and condition, and the column of every property.

    `places` tells where in each list each row's id stands (-1: nowhere). `unknown` are, by the text of an offer's
    condition, the rows for which it is NULL; `failed`, by SQL text, the rows for which it raised an error.
    """

    masks: Masks
    places: dict[Leaf, Ints]
    values: dict[str, pa.Array]
    unknown: dict[str, Mask]
    failed: dict[str, Mask]


class Evaluator:
    """The conditions of a plan over record batches; errors of a row are caught one by one.

    `load_list` gives the ids of a list file for a column of the customers; lists are indexed once, when the evaluator
    is made.
    """

    def __init__(self, plan: Plan, load_list: Callable[[str, str], pa.Array]) -> None:
        self._plan = plan
        self.customer = plan.engine.columns.customer
        self._con = open_connection()
        self._conditions = [leaf.sql for leaf in plan.leaves if leaf.sql] + list(plan.offer_conditions)
        self._conditions = list(dict.fromkeys(self._conditions))
        self._computed = [text for text in plan.values if text not in plan.columns or plan.values[text] == "VARCHAR"]
        lists = dict.fromkeys((leaf.file, leaf.column) for leaf in plan.leaves if leaf.file)
        self.lists = {
            (file, column): ListIndex.build(load_list(file, column), column, plan.engine) for file, column in lists
        }
        launched = plan.launched.strftime("%Y-%m-%d %H:%M:%S.%f")
        more = f", TIMESTAMP '{launched}' AS {LAUNCHED_AT}"
        self._source = f"(SELECT *{more} FROM {TABLE})"  # noqa: S608
        self._attempts = Attempts(more)

    def evaluate(self, rows: pa.RecordBatch) -> Evaluated:
        """The answers of one batch."""
        expressions = [f"CAST(({_closed(text)}) AS BOOLEAN)" for text in self._conditions]
        expressions += [self._value(text) for text in self._computed]
        failed: dict[str, Mask] = {}
        table = _without_built_ins(rows)
        self._con.register(TABLE, table)
        try:
            arrays = self._query(expressions)
        except ROW_ERRORS:
            arrays, failed = self._attempt(table, expressions)
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
        passed |= {leaf: found >= 0 for leaf, found in places.items()}
        unknown = {text: _nulls(answers[text], failed.get(text)) for text in self._plan.offer_conditions}
        values = dict(zip(self._computed, arrays[split:], strict=True))
        plain = {text: rows.column(text) for text in self._plan.values if text not in values}
        wrong = {Leaf(sql=text): mask for text, mask in failed.items() if text in answers}
        return Evaluated(Masks(passed, wrong), places, values | plain, unknown, failed)

    def reason(self, rows: pa.RecordBatch, row: int, text: str) -> str:
        """The error that an expression raises for a row."""
        expression = self._value(text) if text in self._plan.values else f"CAST(({_closed(text)}) AS BOOLEAN)"
        return self._attempts.reason(_without_built_ins(rows.slice(row, 1)), expression)

    def _value(self, text: str) -> str:
        return f"CAST(({_closed(text)}) AS {self._plan.values[text]})"

    def _query(self, expressions: list[str]) -> list[pa.Array]:
        if not expressions:
            return []
        named = ", ".join(f"{text} AS c{index}" for index, text in enumerate(expressions))
        table = self._con.sql(f"SELECT {named} FROM {self._source}").to_arrow_table()  # noqa: S608
        return [column.combine_chunks() for column in table.columns]

    def _attempt(self, table: pa.Table, expressions: list[str]) -> tuple[list[pa.Array], dict[str, Mask]]:
        """The same columns when a value made some expression fail."""
        arrays: list[pa.Array] = []
        failed: dict[str, Mask] = {}
        kinds = [pa.bool_() for _ in self._conditions] + [_ARROW[self._plan.values[text]] for text in self._computed]
        for text, expression, kind in zip([*self._conditions, *self._computed], expressions, kinds, strict=True):
            array, mask = self._attempts.values(table, expression, kind)
            arrays.append(array)
            if mask.any():
                failed[text] = failed[text] | mask if text in failed else mask
        return arrays, failed


def _closed(text: str) -> str:
    """The text on lines of its own: a comment in it ends before our bracket."""
    return f"\n{text}\n"


def _without_built_ins(rows: pa.RecordBatch) -> pa.Table:
    """The customers as conditions see them: a column of the name `launched_at` gives way to the launch's time."""
    return pa.Table.from_batches([rows]).select([name for name in rows.schema.names if name.lower() != LAUNCHED_AT])


def _nulls(array: pa.Array, but: Mask | None = None) -> Bools:
    """The rows without a value, apart from those that failed."""
    nulls = to_mask(array.is_null()) if array.null_count else np.zeros(len(array), np.bool_)
    return nulls if but is None else nulls & ~but


def evaluate_batch(
    plan: Plan, evaluator: Evaluator, duplicates: Mapping[str, Ints], batch: CustomerBatch
) -> LaunchBatch:
    """The batch with the matched rows of each campaign, retailer by retailer, and the counts of each node.

    `duplicates` are rows to refuse, by the name of their batch.
    """
    accepted = accept(plan, batch, duplicates.get(batch.name))
    found = evaluator.evaluate(accepted.rows)
    evidence = Evidence()
    scopes: dict[tuple[bool, ...], Mask] = {}
    customers = id_texts(accepted.rows.column(plan.engine.columns.customer)).cast(pa.string())
    retailers = pa.DictionaryArray.from_arrays(
        pa.array(accepted.retailer, pa.int32()), pa.array(accepted.retailers, pa.string())
    )
    campaigns, nodes = [], {}
    for entry in plan.campaigns:
        chosen = tuple(entry.scope(retailer) for retailer in accepted.retailers)
        if chosen not in scopes:
            scopes[chosen] = np.array(chosen, np.bool_)[accepted.retailer]
        answer = match(entry.tree, scopes[chosen], found.masks)
        rows = np.flatnonzero(answer.passed)
        _note_failures(evidence, entry, evaluator, accepted, answer)
        _note_values(evidence, entry, evaluator, accepted, found, rows)
        rows = rows[np.argsort(accepted.retailer[rows], kind="stable")]
        places = pa.array(rows)
        campaigns.append(CampaignRows.of(entry.campaign.id, rows, customers.take(places), retailers.take(places)))
        nodes[entry.campaign.id] = answer.counts
    whens = {text: found.masks.passed[Leaf(sql=text)] for text in plan.offer_conditions}
    accepted.counts["nodes"] = nodes
    accepted.counts["evidence"] = evidence.rows()
    accepted.counts["lists"] = [
        list_use(leaf.file, leaf.column, evaluator.lists[leaf.file, leaf.column], places)
        for leaf, places in found.places.items()
    ]
    accepted.campaigns, accepted.values, accepted.offer_conditions = campaigns, found.values, whens
    return accepted


def _note_failures(
    evidence: Evidence, entry: CampaignPlan, evaluator: Evaluator, batch: LaunchBatch, answer: Match
) -> None:
    """The nodes whose condition raised an error, with an example."""
    nodes = list(entry.tree.nodes()) if answer.failed else []
    for place, row in answer.failed.items():
        node, customer = nodes[place], str(batch.rows.column(evaluator.customer)[row])
        reason = evaluator.reason(batch.rows, row, node.label)
        count = answer.counts[place].failed
        evidence.add("condition_failed", entry.campaign.id, node.place, node.label, count, customer, reason)


def _note_values(
    evidence: Evidence, entry: CampaignPlan, evaluator: Evaluator, batch: LaunchBatch, found: Evaluated, rows: Ints
) -> None:
    """The properties and the offers' conditions that are NULL or raised an error for matched customers."""
    properties = entry.campaign.content.properties.items()
    places = [("property", f"content.properties.{name}", text) for name, text in properties]
    offers = enumerate(entry.campaign.offers)
    places += [("when", f"offers.{index}.when", offer.when) for index, offer in offers if offer.when]
    for kind, field, text in places:
        wrong = found.failed.get(text)
        nulls = found.unknown[text] if kind == "when" else None
        if nulls is None and found.values[text].null_count:
            nulls = _nulls(found.values[text], wrong)
        for what, mask in (("failed", wrong), ("null", nulls)):
            if mask is not None and (count := int(np.count_nonzero(mask[rows]))):
                row = int(rows[np.argmax(mask[rows])])
                reason = evaluator.reason(batch.rows, row, text) if what == "failed" else ""
                customer = str(batch.rows.column(evaluator.customer)[row])
                evidence.add(f"{kind}_{what}", entry.campaign.id, field, text, count, customer, reason)


class EvaluateAudience(BatchStep):
    """LaunchBatches with the matched rows of each campaign, from CustomerBatches."""

    stage = "audience"
