"""Parses retailers' Liquid templates once, within limits of time and memory, and reports mistakes with their lines."""

from __future__ import annotations

import inspect
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from threading import Lock
from typing import NamedTuple

from liquid import BoundTemplate, Environment
from liquid.ast import Node
from liquid.builtin.expressions.arguments import KeywordArgument
from liquid.builtin.expressions.filtered import Filter, FilteredExpression, TernaryFilteredExpression
from liquid.builtin.expressions.primitive import IntegerLiteral, RangeLiteral
from liquid.exceptions import LiquidError
from liquid.expression import Expression
from liquid.token import Token

from connectors.vendors.liquid_filters import FILTERS, limited
from connectors.vendors.liquid_limits import MAX_ITEMS, MAX_TEXT, TAGS, LimitedContext, LimitedCycleTag, LimitedTemplate

MAX_SOURCE = 256 << 10  # characters of a template
MAX_MARKUP = 8_000  # characters between {% and %}, or {{ and }}
MAX_MARKUPS = 5_000
_MAX_BRACKETS = 200  # of each kind in one tag: for each the library looks through the rest of it
_CACHE = 64 << 20  # bytes of parsed templates that are kept, estimated
_OPENS = re.compile(r"\{[%{]")
_HEAD = re.compile(r"\{%-?\s*(#|\w+)")
_VERBATIM = re.compile(r"\{%-?\s*(raw|doc)\s*-?%\}")
_ENDS = {name: re.compile(rf"\{{%-?\s*end{name}\s*-?%\}}") for name in ("raw", "doc")}
_BLANKS = re.compile(r"\s{200}")


class Mistake(NamedTuple):
    """A mistake in a template, with its line and column, from 1 on."""

    line: int
    column: int
    words: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.words}"


class _Sandboxed(Environment):
    """Liquid without includes, and with limits. An unknown name renders as nothing, as at the vendor."""

    template_class = LimitedTemplate
    loop_iteration_limit = MAX_ITEMS
    output_stream_limit = MAX_TEXT
    local_namespace_limit = MAX_TEXT

    def setup_tags_and_filters(self, *, extra: bool = False) -> None:
        super().setup_tags_and_filters(extra=False)
        self.add_tag(LimitedCycleTag)
        self.tags = {name: tag for name, tag in self.tags.items() if name in TAGS}
        self.filters = {name: limited(name, real) for name, real in self.filters.items() if name in FILTERS}

    def error(self, exc: type[LiquidError] | LiquidError, msg: str | None = None, token: Token | None = None) -> None:
        """Raises; an error at the end of an expression is given the place of that expression."""
        if isinstance(exc, LiquidError) and exc.token is not None and exc.token.start_index < 0:
            exc.token = token
        super().error(exc, msg, token)


_PLAIN, _HTML = _Sandboxed(), _Sandboxed(autoescape=True)


class _Cache:
    """Parsed templates, or their mistakes; the least recently used are dropped when the cache is full."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._entries: OrderedDict[tuple[str, bool], tuple[BoundTemplate | Mistake, int]] = OrderedDict()
        self._size = 0

    def get(self, text: str, html: bool) -> BoundTemplate | Mistake:
        """The template; two threads may parse it at the same time."""
        with self._lock:
            if (text, html) in self._entries:
                self._entries.move_to_end((text, html))
                return self._entries[text, html][0]
        parsed = _parse(text, html)
        size = 1_000 + 4 * len(text) + 2_000 * (text.count("{%") + text.count("{{"))
        with self._lock:
            if (text, html) not in self._entries:
                self._entries[text, html] = parsed, size
                self._size += size
            while self._size > _CACHE and len(self._entries) > 1:
                self._size -= self._entries.popitem(last=False)[1][1]
        return parsed


parse_template = _Cache().get


def check_template(text: str) -> list[Mistake]:
    """The mistakes of a template: the first one of its syntax and tags; without one all of its filters, their
    arguments, and ranges that are too long."""
    template = parse_template(text, False)
    if isinstance(template, Mistake):
        return [template]
    mistakes = []
    for expression in _expressions(template.nodes, LimitedContext(template)):
        if isinstance(expression, RangeLiteral) and _length(expression) > MAX_ITEMS:
            mistakes.append(_at(text, expression.token.start_index, f"a range of more than {MAX_ITEMS:,}"))
        for used_filter in _filters(expression):
            if message := _filter_mistake(used_filter):
                mistakes.append(_at(text, used_filter.token.start_index, message))
    return sorted(set(mistakes))


def describe_error(error: LiquidError, text: str) -> Mistake:
    """An error of Liquid with its line and column; one without a place is at the end."""
    context = error.context()
    message = " ".join(str(error.message).split())
    line, column = (context[0], context[1] + 1) if context else (text.count("\n") + 1, 1)
    return Mistake(line, column, message[:300])


def _parse(text: str, html: bool) -> BoundTemplate | Mistake:
    if mistake := _scan(text):
        return mistake
    try:
        return (_HTML if html else _PLAIN).from_string(text)
    except LiquidError as error:
        if isinstance(error.__cause__, RecursionError):
            return Mistake(1, 1, "conditions or brackets are nested too deeply")
        return describe_error(error, text)


def _scan(text: str) -> Mistake | None:
    """The first text that would make the library's lexer slow (some patterns take quadratic time for an unclosed tag),
    found in one pass."""
    if len(text) > MAX_SOURCE:
        return Mistake(1, 1, f"the template has more than {MAX_SOURCE >> 10} kB")
    at = count = 0
    while opening := _OPENS.search(text, at):
        start, count = opening.start(), count + 1
        end = text.find("%}" if text[start + 1] == "%" else "}}", start + 2)
        if (message := _markup_mistake(text, start, end)) or count > MAX_MARKUPS:
            return _at(text, start, message or f"more than {MAX_MARKUPS:,} tags and outputs")
        at = end + 2
        if verbatim := _VERBATIM.match(text, start):
            ending = _ENDS[verbatim[1]].search(text, at)
            if ending is None:
                return _at(text, start, f"{{% {verbatim[1]} %}} has no {{% end{verbatim[1]} %}}")
            at = ending.end()
    return None


def _markup_mistake(text: str, start: int, end: int) -> str | None:
    opens = text[start : start + 2]
    if end < 0:
        return f"{opens} has no {'%}' if opens == '{%' else '}}'}"
    if end - start > MAX_MARKUP:
        return f"more than {MAX_MARKUP:,} characters between {opens} and its end"
    if opens == "{%" and not _HEAD.match(text, start):
        return "a tag has no name"
    inner = text[start:end]
    if inner.count("(") > _MAX_BRACKETS or inner.count("[") > _MAX_BRACKETS:
        return f"more than {_MAX_BRACKETS} brackets in one tag"
    return "more than 200 blanks in a row within a tag" if _BLANKS.search(inner) else None


def _at(text: str, place: int, message: str) -> Mistake:
    return Mistake(text.count("\n", 0, place) + 1, place - text.rfind("\n", 0, place), message)


def _expressions(nodes: Iterable[Node], context: LimitedContext) -> Iterator[Expression]:
    for node in nodes:
        for expression in node.expressions():
            yield from _with_parts(expression)
        yield from _expressions(node.children(context), context)


def _with_parts(expression: Expression) -> Iterator[Expression]:
    yield expression
    for part in expression.children():
        yield from _with_parts(part)


def _filters(expression: Expression) -> list[Filter]:
    if isinstance(expression, TernaryFilteredExpression):
        return [*(expression.filters or ()), *(expression.tail_filters or ())]
    return expression.filters or [] if isinstance(expression, FilteredExpression) else []


def _filter_mistake(used_filter: Filter) -> str | None:
    """An unknown filter, or arguments that it does not take."""
    function = _PLAIN.filters.get(used_filter.name)
    if function is None:
        return f"unknown filter {used_filter.name!r}"
    named = {argument.name: None for argument in used_filter.args if isinstance(argument, KeywordArgument)}
    unnamed = [None for argument in used_filter.args if not isinstance(argument, KeywordArgument)]
    signature = inspect.signature(function)
    if "environment" in signature.parameters:
        named["environment"] = None
    try:
        signature.bind(None, *unnamed, **named)
    except TypeError as error:
        return f"the filter {used_filter.name} {error}"
    return None


def _length(literal: RangeLiteral) -> int:
    start, stop = literal.start, literal.stop
    if isinstance(start, IntegerLiteral) and isinstance(stop, IntegerLiteral):
        return stop.value - start.value + 1
    return 0
