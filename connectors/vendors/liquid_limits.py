"""Hard limits for retailers' Liquid: no value is made that is over its bound, and every step is counted.

The work of a rendering is the sum over its steps (a node, a filter, the look-up of a name, a range): `STEP`, and a unit
for each character or item that the step handles. Everything that python-liquid does in one step takes time and memory
in proportion to that, but for what this module checks before it is done, or does in its own way. So the bound of the
work bounds both. The processor time is a second net below it.
"""

from __future__ import annotations

import time
from io import StringIO
from typing import Any, TextIO

from liquid import BoundTemplate, RenderContext
from liquid.builtin.expressions.primitive import RangeLiteral
from liquid.builtin.tags.cycle_tag import CycleNode, CycleTag
from liquid.exceptions import LiquidError, LiquidInterrupt, LiquidTypeError
from liquid.output import LimitedStringIO
from liquid.undefined import UNDEFINED
from markupsafe import Markup

MAX_TEXT = 256 << 10  # bytes of the rendered text; characters of a value, and of all that is kept in variables
MAX_ITEMS = 10_000  # of an array or a range; turns of nested loops
MAX_WORK = 50_000_000
MAX_SECONDS = 1.0  # of processor time
STEP = 500  # what a step costs before it handles anything: 100,000 steps are the most
_MAX_BITS = 4096  # of a whole number
_LOOK_EVERY = 16 * STEP  # work between two looks at the clock
_ITEM = 8  # what an item of an array weighs beside its characters
_NONE: list[str] = []
TAGS = frozenset(
    "content output illegal if comment unless case for break continue tablerow capture cycle assign increment "
    "decrement echo liquid ifchanged # doc".split()
)
"""What a template may use: each costs a step, and its text goes through a buffer that is counted. Another tag of a
newer library is left out until somebody has looked at it."""


class OverLimit(LiquidTypeError):
    """A template that wants more than it may have. The filter that does gives it its place."""

    def __init__(self, message: str) -> None:
        super().__init__(message, token=None)


class Budget:
    """What a rendering may still do. `work` is what it did; whoever adds to it looks when `next_look` is reached."""

    __slots__ = ("_end", "next_look", "work")

    def __init__(self) -> None:
        self.work, self.next_look = 0, _LOOK_EVERY
        self._end = float("inf")

    def spend(self, handled: int = 0) -> None:
        """Counts a step that handles so many characters or items. Raises OverLimit."""
        self.work += STEP + handled
        if self.work >= self.next_look:
            self.look()

    def look(self) -> None:
        """Raises OverLimit when it is too much."""
        if self.work > MAX_WORK:
            raise OverLimit("the template does too much: fewer loops, or smaller values in them")
        now = time.thread_time()
        self._end = min(self._end, now + MAX_SECONDS)  # from the first look on: most templates end before it
        if now > self._end:
            raise OverLimit(f"the template took more than {MAX_SECONDS:g} s of processor time")
        self.next_look = self.work + _LOOK_EVERY


def weight(value: object) -> int:
    """The characters of a value, with 8 for each that is no text; those of an array or a mapping with its items.
    Raises OverLimit for too many items."""
    kind = type(value)
    if kind is str or kind is Markup:
        return len(value)  # type: ignore[arg-type]
    if kind is float or kind is bool or value is None:
        return _ITEM
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list | tuple):
        if len(value) > MAX_ITEMS:
            raise OverLimit(f"an array of more than {MAX_ITEMS:,} items")
        return _ITEM * len(value) + sum(map(weight, value))
    if isinstance(value, range):
        return _ITEM * len(value)
    if isinstance(value, dict):
        return _ITEM * len(value) + sum(weight(key) + weight(item) for key, item in value.items())
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
        raise OverLimit("a number with too many digits")
    return _ITEM


def check_weight(total: int) -> None:
    """Raises OverLimit for more than a value may weigh."""
    if total > MAX_TEXT:
        raise OverLimit(f"a value of more than {MAX_TEXT >> 10} kB")


class LimitedContext(RenderContext):
    """What a template sees and keeps, counted."""

    __slots__ = ("_kept", "budget")

    def __init__(self, template: BoundTemplate, **settings: Any) -> None:
        self.budget, self._kept = Budget(), 0
        super().__init__(template, **settings)

    @property
    def disabled_tags(self) -> list[str]:
        """None. Every node asks for these before it is rendered, which is where the node is counted."""
        budget = self.budget
        budget.work += STEP
        if budget.work >= budget.next_look:
            budget.look()
        return _NONE

    @disabled_tags.setter
    def disabled_tags(self, names: list[str]) -> None:
        pass

    def get(self, path: list[object], *, token: Any, default: object = UNDEFINED) -> object:
        """A value by its path."""
        value = RenderContext.get(self, path, token=token, default=default)
        budget, kind = self.budget, type(value)
        budget.work += STEP
        if kind is str or kind is list or kind is Markup:
            budget.work += len(value)  # type: ignore[arg-type]
        if budget.work >= budget.next_look:
            budget.look()
        return value

    def assign(self, key: str, val: Any) -> None:
        """Keeps a variable, unless all of them would be too much."""
        added = weight(val)
        self._kept += added - (weight(self.locals[key]) if key in self.locals else 0)
        self.budget.spend(added)
        self._check_kept()
        self.locals[key] = val

    def cycle(self, key: object, length: int) -> int:
        """The place in a cycle, whose name is kept."""
        if key not in self.tag_namespace["cycles"]:
            self._kept += weight(key)
            self._check_kept()
        return super().cycle(key, length)

    def get_size_of_locals(self) -> int:
        """What the variables weigh."""
        return self._kept

    def get_buffer(self, buf: TextIO | None = None) -> StringIO:
        """A buffer for a part of the text, every piece of which is counted."""
        taken = buf.size if isinstance(buf, LimitedStringIO) else 0
        return _CountedBuffer(MAX_TEXT - taken, self.budget)

    def _check_kept(self) -> None:
        if self._kept > MAX_TEXT:
            raise OverLimit(f"variables of more than {MAX_TEXT >> 10} kB")


class _Buffer(LimitedStringIO):
    def write(self, text: str) -> int:
        self.size += len(text) if text.isascii() else len(text.encode())
        if self.size > self.limit:
            raise OverLimit(f"a text of more than {MAX_TEXT >> 10} kB")
        return StringIO.write(self, text)


class _CountedBuffer(_Buffer):
    def __init__(self, limit: int, budget: Budget) -> None:
        super().__init__(limit)
        self._budget = budget

    def write(self, text: str) -> int:
        self._budget.spend(len(text))
        return _Buffer.write(self, text)


class LimitedTemplate(BoundTemplate):
    """A template whose rendering has limits."""

    context_class = LimitedContext

    def render(self, *args: Any, **kwargs: Any) -> str:
        """The text. Raises LiquidError with a place, whatever went wrong."""
        context = LimitedContext(self, globals=self.make_globals(dict(*args, **kwargs)))
        buffer = _Buffer(MAX_TEXT)  # not counted: all that is ever written to it is bounded
        with context.extend({}):
            for node in self.nodes:
                try:
                    node.render(context, buffer)
                except LiquidInterrupt as error:
                    raise LiquidTypeError(f"unexpected {error}", token=node.token) from error
                except LiquidError as error:
                    self.env.error(error, token=node.token)
                except Exception as error:  # a template can provoke anything: overflow, recursion, no such date
                    raise LiquidTypeError(f"{type(error).__name__}: {error}", token=node.token) from error
        return buffer.getvalue()


class _LimitedCycle(CycleNode):
    """The library makes one text of all arguments."""

    def render_to_output(self, context: RenderContext, buffer: TextIO) -> int:
        total = sum(weight(argument.evaluate(context)) for argument in self.args)
        total += weight(self.group.evaluate(context)) if self.group else 0
        check_weight(total)
        budget_of(context).spend(total)
        return super().render_to_output(context, buffer)


class LimitedCycleTag(CycleTag):
    """The tag `cycle`, whose arguments have limits."""

    node_class = _LimitedCycle


def budget_of(context: RenderContext) -> Budget:
    """What the rendering of a context may still do."""
    assert isinstance(context, LimitedContext)
    return context.budget


def _limited_range(literal: RangeLiteral, context: RenderContext) -> range:
    result = literal._make_range(literal.start.evaluate(context), literal.stop.evaluate(context))
    if isinstance(context, LimitedContext):
        if result.stop - result.start > MAX_ITEMS:
            error = OverLimit(f"a range of more than {MAX_ITEMS:,}")
            error.token = literal.token
            raise error
        context.budget.spend(16 * len(result))  # a condition may compare with each of them
    return result


# The library makes ranges in a function that knows no environment, so that there is nothing to register.
RangeLiteral.evaluate = _limited_range  # type: ignore[method-assign, assignment]
