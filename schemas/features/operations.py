"""The operations of aggregations, and their limits."""

from __future__ import annotations

NUMERIC = frozenset({"sum", "mean", "variance", "min", "max", "decayed_sum", "quantiles"})
VALUED = NUMERIC | {"first", "last", "last_k", "distinct", "count_by"}  # operations that need a column
OPERATIONS = VALUED | {"count", "ratio"}
COMPARISONS = frozenset({"==", "!=", "<", "<=", ">", ">=", "in", "is_null", "not_null"})
EXACT_DISTINCT = 1_024  # distinct counts are exact up to here, then estimated within 3 % (one standard error)
MOST_LAST = 100
MOST_HALVINGS = 500  # of a decayed sum within a tile: so that no weight leaves a double's range
TILED = frozenset({"count", "sum", "mean", "variance", "min", "max", "first", "last"})  # each tile has a value of it
