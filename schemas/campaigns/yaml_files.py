"""YAML read as data only: no tags, no aliases, no surprises of YAML 1.1, with the line of every field."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from schemas.problems import Problem, shown

MAX_BYTES = 1_000_000
MAX_DIGITS = 40


class _LongNumber(int):
    """A whole number of more digits than any field takes, shown as it is written: Python converts 4,300 at most."""

    _text: str

    def __new__(cls, text: str) -> _LongNumber:
        number = super().__new__(cls, -(10**MAX_DIGITS) if text.startswith("-") else 10**MAX_DIGITS)
        number._text = text
        return number

    def __repr__(self) -> str:
        return self._text


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2: `NO`, `21:00` and dates stay text."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 (the base class declares it so)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not allowed: write it out", problem_mark=mark)
        event = self.peek_event()
        if getattr(event, "tag", None) is not None:
            problem = f"tags ({event.tag}) are not allowed: write the plain value"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        value = super().construct_scalar(node)
        if isinstance(value, str) and not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            problem = "half of a character (a surrogate, \\ud800 to \\udfff) is no text"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return value

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """A whole number as YAML 1.2 has it: decimal, whatever zeros lead it."""
        text = str(self.construct_scalar(node))
        return int(text) if len(text) <= MAX_DIGITS else _LongNumber(text)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                problem = "the name of a field must be plain text"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in [
    ("null", r"(?:~|null|Null|NULL|)$", "~nN\0"),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"[-+]?[0-9]+$", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", "-+.0123456789"),
]:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


class Document:
    """A YAML file's data, and the line at which each of its fields stands."""

    def __init__(self, file: str, data: Any, node: yaml.Node | None) -> None:
        self.file = file
        self.data = data
        self._node = node

    def line(self, path: tuple[str | int, ...]) -> int | None:
        """The line of a field, or of its nearest parent that is written."""
        node = self._node
        line = None if node is None else node.start_mark.line + 1
        for part in path:
            node = _child(node, part)
            if node is None:
                break
            line = node.start_mark.line + 1
        return line

    def problem(self, path: tuple[str | int, ...], value: object, fix: str) -> Problem:
        """A problem at a field of this file."""
        return Problem(self.file, ".".join(map(str, path)), shown(value), fix, self.line(path))


def _child(node: yaml.Node | None, part: str | int) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        return next((value for key, value in node.value if key.value == str(part)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        child: yaml.Node = node.value[part]
        return child
    return None


def read_yaml(path: Path, shown_as: str) -> Document | Problem:
    """The document of a file, or the problem that keeps it from being read."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        return Problem(shown_as, "", "", f"cannot be read ({error.strerror}); check the path and its permissions")
    if len(raw) > MAX_BYTES:
        return Problem(shown_as, "", f"{len(raw):,} bytes", f"is larger than {MAX_BYTES:,} bytes: not a configuration")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return Problem(shown_as, "", f"byte {error.start}", "is not UTF-8 text; save the file as UTF-8")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        data = None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        return Problem(shown_as, "", str(error.problem), "is not valid YAML; correct this line", line)
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        return Problem(shown_as, "", shown(str(error)), "is not valid YAML")
    except RecursionError:
        return Problem(shown_as, "", "nested too deeply", "flatten the file: a campaign needs a few levels")
    if data is None:
        return Problem(shown_as, "", "empty file", "write a campaign here or delete the file")
    if not isinstance(data, dict):
        return Problem(shown_as, "", shown(data), "must be a mapping of fields (name: value)")
    return Document(shown_as, data, node)
