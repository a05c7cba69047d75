"""exact_ids: the texts of a column of ids, by which customers, units and lists are matched."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

INEXACT = "is no exact id: a number with a fraction, too large for its type, NaN or infinite"
_EXACT_BITS = {16: 11, 32: 24, 64: 53}
"""By the bits of a float, the power of two up to which it holds every whole number."""

_INVISIBLE = "".join(chr(code) for code in range(sys.maxunicode) if chr(code).isspace()) + "\u200b\u2060\ufeff"


class IdTexts(NamedTuple):
    """A text for each row, null for none; `inexact` are the rows (sorted) with a value that is no exact id."""

    texts: pa.Array
    inexact: npt.NDArray[np.int64]


def id_type_problem(kind: pa.DataType) -> str | None:
    """The reason why a column of a type cannot hold ids; None for texts, whole numbers, floats, decimals and nulls."""
    if pa.types.is_dictionary(kind):
        return id_type_problem(kind.value_type)
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if number or is_text(kind) or pa.types.is_null(kind):
        return None
    return f"an id is text or a whole number, this is {kind}; write the column as text"


def exact_ids(column: Any) -> IdTexts:
    """The ids of a column (see `id_type_problem`): texts unchanged, whole numbers as digits.

    A float or a decimal is an id when it is whole; a float only up to 2^53 (32 bits: 2^24), since above that several
    whole numbers have one float.
    """
    kind = column.type
    nothing = np.zeros(0, np.int64)
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], kind)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return IdTexts(column, nothing)
    if pa.types.is_dictionary(kind):
        texts, inexact = exact_ids(column.dictionary)
        places = pc.is_in(column.indices, pa.array(inexact).cast(column.indices.type))
        return IdTexts(texts.take(column.indices), np.flatnonzero(places.to_numpy(zero_copy_only=False)))
    if pa.types.is_floating(kind):
        return _of_floats(column, 2.0 ** _EXACT_BITS[kind.bit_width])
    if pa.types.is_decimal(kind):
        return _of_decimals(column)
    return IdTexts(column.cast(pa.string()), nothing)


def id_texts(column: Any) -> pa.Array:
    """The texts of `exact_ids`, null where a value is no exact id."""
    return exact_ids(column).texts


def id_text(value: Any, kind: pa.DataType) -> str | None:
    """The id of one value of a column."""
    text: str | None = id_texts(pa.array([value], kind))[0].as_py()
    return text


def trimmed(texts: Any) -> Any:
    """Texts without the invisible characters around them: blanks of every kind, zero-width blanks, byte-order marks."""
    return pc.utf8_trim(texts, characters=_INVISIBLE)


def normal_addresses(texts: Any) -> Any:
    """Addresses in the form that is compared: trimmed, in lower case."""
    return pc.utf8_lower(trimmed(texts))


def _of_floats(column: pa.Array, limit: float) -> IdTexts:
    present = np.asarray(column.is_valid().to_numpy(zero_copy_only=False), np.bool_)
    numbers = column.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False)
    with np.errstate(invalid="ignore"):
        whole = (np.abs(numbers) <= limit) & (np.trunc(numbers) == numbers)
    texts = pa.array(np.where(whole, numbers, 0).astype(np.int64), mask=~(whole & present)).cast(pa.string())
    return IdTexts(texts, np.flatnonzero(present & ~whole))


def _of_decimals(column: pa.Array) -> IdTexts:
    wide, digits = (pa.decimal128, 38) if column.type.bit_width <= 128 else (pa.decimal256, 76)
    whole = column.cast(wide(digits, 0), safe=False)
    if column.type.scale <= 0:
        return IdTexts(whole.cast(pa.string()), np.zeros(0, np.int64))
    scaled = wide(digits, column.type.scale)
    same = pc.equal(whole.cast(scaled, safe=False), column.cast(scaled))
    texts = pc.if_else(same, whole.cast(pa.string()), pa.scalar(None, pa.string()))
    return IdTexts(texts, np.flatnonzero(pc.fill_null(pc.invert(same), False).to_numpy(zero_copy_only=False)))


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of a type holds plain texts; a dictionary of texts is not one."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
