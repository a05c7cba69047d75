"""Validates the rows of a batch: a customer has an id and a retailer, once. Other rows become dead letters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.columns.ids import INEXACT, exact_ids, id_texts, trimmed
from schemas.columns.masks import to_mask
from schemas.contracts import DeadLetter
from schemas.elements import BROKEN_ROWS, CustomerBatch, LaunchBatch
from transforms.launch_plan import Plan

MAX_ID = 200
STEP = "CheckCustomers"
_DETAIL = {
    "missing_id": "the customer's or the retailer's id is empty; correct the source and launch again",
    "bad_id": f"an id has a blank before or after it, control characters, or more than {MAX_ID} characters; correct "
    "the source",
    "broken_text": "some text is not UTF-8 (escaped here as \\x..); write the source again as UTF-8",
    "inexact_id": f"column {{column}} {INEXACT}; write the column as text",
    "duplicate_customer": "this customer stands in an earlier row too, which was used; make ids unique",
}


def validate_customers(plan: Plan, duplicates: np.ndarray | None, batch: CustomerBatch) -> LaunchBatch:
    """The valid rows, without campaigns; each refused row as a dead letter with its columns as JSON.

    `duplicates` are row numbers in the whole batch. Counts `read` and `evaluated`.
    """
    rows = batch.rows
    places = np.arange(rows.num_rows) if batch.places is None else batch.places
    inexact = _inexact_rows(plan, rows)
    reasons = _reasons(plan, rows, None if duplicates is None else np.isin(places, duplicates), inexact)
    dead_letters = [
        DeadLetter(
            step=STEP,
            reason=str(reasons[row]),
            detail=_DETAIL[str(reasons[row])].format(column=inexact.get(int(row))),
            source=f"batch {batch.name} row {places[row]}",
            data=json.dumps(rows.slice(row, 1).to_pylist()[0], default=str, ensure_ascii=False).encode(),
            trace=f"{plan.launch_id}/{batch.name}",
        )
        for row in np.flatnonzero(reasons != "")
    ]
    if dead_letters:
        rows, places = rows.filter(pa.array(reasons == "")), places[reasons == ""]
    encoded = id_texts(rows.column(plan.engine.columns.retailer)).dictionary_encode()
    retailer = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    retailers = encoded.dictionary.to_pylist()
    return LaunchBatch(
        name=batch.name,
        rows=rows,
        places=places,
        retailer=retailer,
        retailers=retailers,
        values={},
        offer_conditions={},
        campaigns=(),
        counts={
            "read": batch.rows.num_rows,
            "evaluated": dict(zip(retailers, np.bincount(retailer, minlength=len(retailers)).tolist(), strict=True)),
        },
        dead_letters=dead_letters,
    )


def _inexact_rows(plan: Plan, rows: pa.RecordBatch) -> dict[int, str]:
    """The rows that have a value but no exact id in a column of ids, with the first such column."""
    last_first = reversed(plan.id_columns)
    return {row: name for name in last_first for row in exact_ids(rows.column(name)).inexact.tolist()}


def _reasons(plan: Plan, rows: pa.RecordBatch, duplicates: np.ndarray | None, inexact: Mapping[int, str]) -> np.ndarray:
    """The reason to refuse each row, an empty text for a valid one."""
    reasons: np.ndarray = np.full(rows.num_rows, "", dtype="<U20")
    if duplicates is not None:
        reasons[duplicates] = "duplicate_customer"
    if broken := (rows.schema.metadata or {}).get(BROKEN_ROWS):
        reasons[np.frombuffer(broken, np.int64)] = "broken_text"
    for name in (plan.engine.columns.customer, plan.engine.columns.retailer):
        column = id_texts(rows.column(name)).cast(pa.string())
        if _all_short_ascii(column):
            continue
        long: Any = pc.greater(pc.utf8_length(column), MAX_ID)
        reasons[to_mask(pc.or_(long, pc.match_substring_regex(column, r"[\x00-\x1f\x7f]")))] = "bad_id"
        reasons[to_mask(pc.not_equal(column, trimmed(column)))] = "bad_id"
        empty = pc.equal(pc.utf8_length(trimmed(column)), 0)
        reasons[to_mask(empty) | to_mask(column.is_null())] = "missing_id"
    reasons[list(inexact)] = "inexact_id"
    return reasons


def _all_short_ascii(column: pa.Array) -> bool:
    """Whether every text is short printable ASCII without blanks, decided over the whole buffer at once."""
    if column.null_count or not len(column):
        return False
    offsets = np.frombuffer(column.buffers()[1], np.int32)[column.offset : column.offset + len(column) + 1]
    lengths = np.diff(offsets)
    data = np.frombuffer(column.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
    return bool(lengths.min() > 0 and lengths.max() <= MAX_ID and data.min() > 0x20 and data.max() < 0x7F)
