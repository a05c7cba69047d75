"""What to do about a mistake that pydantic names by a type of Python, by the kind of its error."""

from __future__ import annotations

MESSAGES = {
    "missing": "is missing; add it",
    "tuple_type": "must be a list: [first, second], or a line with a dash for each",
    "list_type": "must be a list: [first, second], or a line with a dash for each",
    "too_short": "is empty; name one at least",
    "string_type": "must be a text; put it in quotes",
    "string_too_short": "is empty; write a value, or remove the line",
    "dict_type": "must hold fields, each on a line of its own: name: value",
    "model_type": "must hold fields, each on a line of its own: name: value",
    "model_attributes_type": "must hold fields, each on a line of its own: name: value",
}
