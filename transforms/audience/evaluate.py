"""EvaluateAudience: which customers of a batch match which campaign, all campaigns in one pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.columns.ids import id_texts
from schemas.elements import Bools, CampaignRows, CustomerBatch, Ints, LaunchBatch
from transforms.audience.conditions import LAUNCHED_AT, TABLE, open_connection
from transforms.audience.tree import Leaf, Mask, Masks, match
from transforms.ids.id_index import IdIndex
from transforms.intake import accept
from transforms.plan import Plan
from transforms.steps import BatchStep


class Evaluator:
    """The conditions of a plan over record batches; errors of a row are caught one by one.

    `load_list` gives the ids of a list file for a column of the customers; lists are indexed once, when the evaluator
    is made.
    """

    def __init__(self, plan: Plan, load_list: Callable[[str, str], pa.Array]) -> None:
        self._plan = plan
        self._con = open_connection()
        self._conditions = [leaf.sql for leaf in plan.leaves if leaf.sql] + list(plan.offer_conditions)
        self._conditions = list(dict.fromkeys(self._conditions))
        self._computed = [text for text in plan.values if text not in plan.columns or plan.values[text] == "VARCHAR"]
        lists = dict.fromkeys((leaf.file, leaf.column) for leaf in plan.leaves if leaf.file)
        self._lists = {(file, column): IdIndex.build(load_list(file, column)) for file, column in lists}
        launched = plan.launched.strftime("%Y-%m-%d %H:%M:%S.%f")
        self._source = f"(SELECT *, TIMESTAMP '{launched}' AS {LAUNCHED_AT} FROM {TABLE})"  # noqa: S608

    def evaluate(self, rows: pa.RecordBatch) -> tuple[Masks, dict[str, pa.Array]]:
        """The mask of every leaf and offer condition, and the column of every property, for one batch."""
        columns = [f"coalesce(({_closed(text)}), false)" for text in self._conditions]
        columns += [f"CAST(({_closed(text)}) AS {self._plan.values[text]})" for text in self._computed]
        failed: dict[Leaf, Mask] = {}
        self._con.register(TABLE, pa.Table.from_batches([rows]))
        try:
            arrays = self._query(columns)
        except duckdb.Error:
            arrays, failed = self._row_by_row()
        finally:
            self._con.unregister(TABLE)
        split = len(self._conditions)
        passed = {Leaf(sql=text): _mask(array) for text, array in zip(self._conditions, arrays[:split], strict=True)}
        for leaf in self._plan.leaves:
            if leaf.file:
                passed[leaf] = self._lists[leaf.file, leaf.column].contains(id_texts(rows.column(leaf.column)))
        values = dict(zip(self._computed, arrays[split:], strict=True))
        plain = {text: rows.column(text) for text in self._plan.values if text not in values}
        return Masks(passed, failed), values | plain

    def _query(self, columns: list[str]) -> list[pa.Array]:
        if not columns:
            return []
        named = ", ".join(f"{text} AS c{index}" for index, text in enumerate(columns))
        table = self._con.sql(f"SELECT {named} FROM {self._source}").to_arrow_table()  # noqa: S608
        return [column.combine_chunks() for column in table.columns]

    def _row_by_row(self) -> tuple[list[pa.Array], dict[Leaf, Mask]]:
        """The same columns when a value made some condition fail: that row does not match, and is counted.

        A condition is tried once a query: where it stands twice the engine takes it out of its TRY.
        """
        arrays, failed = [], {}
        for text in self._conditions:
            (tried,) = self._query([f"TRY({{'v': ({_closed(text)})}})"])
            arrays.append(pc.fill_null(pc.struct_field(tried, "v"), False))
            if tried.null_count:
                failed[Leaf(sql=text)] = _mask(tried.is_null())
        for text in self._computed:
            arrays += self._query([f"TRY(CAST(({_closed(text)}) AS {self._plan.values[text]}))"])
        return arrays, failed


def _closed(text: str) -> str:
    """The text on lines of its own: a comment in it ends before our bracket."""
    return f"\n{text}\n"


def _mask(array: pa.Array) -> Bools:
    return np.asarray(array.to_numpy(zero_copy_only=False), dtype=np.bool_)


def evaluate_batch(
    plan: Plan, evaluator: Evaluator, duplicates: Mapping[str, Ints], batch: CustomerBatch
) -> LaunchBatch:
    """The batch with the matched rows of each campaign, retailer by retailer, and the counts of each node.

    `duplicates` are rows to refuse, by the name of their batch.
    """
    accepted = accept(plan, batch, duplicates.get(batch.name))
    masks, values = evaluator.evaluate(accepted.rows)
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
        passed, counts = match(entry.tree, scopes[chosen], masks)
        rows = np.flatnonzero(passed)
        rows = rows[np.argsort(accepted.retailer[rows], kind="stable")]
        places = pa.array(rows)
        campaigns.append(CampaignRows.of(entry.campaign.id, rows, customers.take(places), retailers.take(places)))
        nodes[entry.campaign.id] = counts
    whens = {text: masks.passed[Leaf(sql=text)] for text in plan.offer_conditions}
    accepted.counts["nodes"] = nodes
    accepted.campaigns, accepted.values, accepted.offer_conditions = campaigns, values, whens
    return accepted


class EvaluateAudience(BatchStep):
    """LaunchBatches with the matched rows of each campaign, from CustomerBatches."""

    stage = "audience"
