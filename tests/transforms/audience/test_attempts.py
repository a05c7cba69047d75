"""Expressions that raise an error for some rows: the others have their value, whatever kind of error it is."""

import pyarrow as pa
import pytest

from transforms.audience import attempts
from transforms.audience.attempts import Attempts

ROWS = pa.table({"n": [1, 2, 3, 4, 5], "text": ["1", "x", None, "4", "y"], "zone": ["UTC", "UTC", None, "here", "UTC"]})


@pytest.mark.parametrize(
    ("expression", "values", "failed"),
    [
        ("CAST(text AS INTEGER) > 1", [False, None, None, True, None], [1, 4]),
        ("CAST(text AS INTEGER) > 1 AND CAST(text AS INTEGER) < 9", [False, None, None, True, None], [1, 4]),
        ("timezone(zone, TIMESTAMP '2026-01-01') IS NULL", [False, False, True, None, False], [3]),
        ("text LIKE 'a' ESCAPE repeat('|', n)", [False, None, None, None, None], [1, 3, 4]),
        ("n > 3", [False, False, False, True, True], []),
    ],
    ids=["one error", "a part that stands twice", "an error that TRY lets through", "many of them", "none"],
)
def test_a_row_that_fails_costs_the_others_nothing(
    expression: str, values: list[bool | None], failed: list[int]
) -> None:
    found, mask = Attempts("").values(ROWS, expression, pa.bool_())
    assert found.to_pylist() == values
    assert mask.nonzero()[0].tolist() == failed


def test_rows_that_could_not_be_tried_apart_count_as_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "MAX_QUERIES", 4)
    found, mask = Attempts("").values(ROWS, "timezone(zone, TIMESTAMP '2026-01-01') IS NULL", pa.bool_())
    assert len(found) == 5
    assert mask[3]
    assert found.filter(pa.array(mask)).null_count == mask.sum() > 1


def test_the_reason_is_the_engines_own() -> None:
    found = Attempts("")
    assert found.reason(ROWS.slice(1, 1), "CAST(text AS INTEGER)").startswith("Could not convert string 'x' to INT32")
    assert found.reason(ROWS.slice(0, 1), "CAST(text AS INTEGER)") == ""
