"""Faults by script: rules that choose calls and say how they are answered."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import translate
from pathlib import Path
from random import Random
from typing import Any, Literal, NamedTuple

import yaml
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from schemas.campaigns.audience import Strict

Named = Literal["errors", "fatal", "hang", "reset", "slow", "lose"]
FORMS: dict[object, tuple[str, ...]] = {
    "errors": ("named", "indexed", "vague"),
    429: ("retry-after", "x-ratelimit-retry-after", "reset", "seconds", "none"),
    "lose": ("reset", "hang", "half"),
    **dict.fromkeys(range(500, 600), ("accepted",)),
}


class ScriptError(ValueError):
    """A script that cannot be read; says which rule, and what is wrong with it."""


class Match(Strict):
    """Which calls a rule is for: all that is given must fit. Patterns have * and ?; `recipient` is an external user id
    of which one must be in the call."""

    workspace: str | None = None
    campaign: str | None = None
    recipient: str | None = None
    path: str | None = None


class Rule(Strict):
    """Calls that match are answered so: each `every`-th, the `first` ones, a `share` of them, or all.

    `answer` is a status (2xx sends, any other does not) or: `errors`, 201 with errors, and what they name is not sent;
    `fatal`, 201 with a message that is not success, nothing sent; `hang`, no answer; `reset`, the connection breaks;
    `slow`, sent and answered after `seconds`; `lose`, sent and recorded, but the reply never comes.
    `form` is one of FORMS; of a 5xx, `accepted`: sent and recorded, then answered so. `seconds`: how long it takes, or
    with 429 when to come again (1 with slow and 429, else 0).
    """

    match: Match = Match()
    answer: Named | int
    every: int | None = Field(default=None, ge=1)
    first: int | None = Field(default=None, ge=0)
    share: float | None = Field(default=None, ge=0, le=1)
    seed: int = 0
    seconds: float | None = Field(default=None, ge=0)
    form: str | None = None
    message: str | None = None

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> Rule:
        if sum(one is not None for one in (self.every, self.first, self.share)) > 1:
            raise ValueError("give one of every, first and share")
        if isinstance(self.answer, int) and not 200 <= self.answer <= 599:
            raise ValueError(f"answer {self.answer} is no status from 200 to 599")
        if self.form is not None and self.form not in FORMS.get(self.answer, ()):
            raise ValueError(f"{self.answer!r} has no form {self.form!r} (forms: {FORMS.get(self.answer, ())})")
        return self


class Asked(NamedTuple):
    """What a rule looks at: a call's workspace, path, campaign and external user ids."""

    workspace: str
    path: str
    campaign: str
    recipients: Sequence[str]


class _Watcher:
    """A rule at work: how many calls matched it, and its dice."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        given = {name: text for name, text in rule.match if text is not None}
        self._patterns = {name: re.compile(translate(text)) for name, text in given.items()}
        self._seen, self._dice = 0, Random(rule.seed)

    def takes(self, asked: Asked) -> bool:
        """Whether the rule answers this call, which it counts when it matches."""
        for name, pattern in self._patterns.items():
            texts = asked.recipients if name == "recipient" else [getattr(asked, name)]
            if not any(pattern.match(text) for text in texts):
                return False
        self._seen += 1
        rule = self.rule
        if rule.every is not None:
            return self._seen % rule.every == 0
        if rule.first is not None:
            return self._seen <= rule.first
        return rule.share is None or self._dice.random() < rule.share

    def names(self, recipient: str) -> bool:
        """Whether the rule is for this recipient."""
        return "recipient" not in self._patterns or bool(self._patterns["recipient"].match(recipient))


class Script:
    """The rules in order: the first that takes a call answers it, and the later ones do not see it.

    The same calls in the same order meet the same answers.
    """

    def __init__(self, rules: Sequence[Rule] = ()) -> None:
        self.rules = tuple(rules)
        self.restart()

    def restart(self) -> None:
        """Count from the beginning again."""
        self._watchers = [_Watcher(rule) for rule in self.rules]

    def choose(self, asked: Asked) -> tuple[Rule, list[str]] | None:
        """The rule that answers a call, and the recipients of it that the rule is for."""
        for watcher in self._watchers:
            if watcher.takes(asked):
                return watcher.rule, [one for one in asked.recipients if watcher.names(one)]
        return None


_RULES = TypeAdapter(list[Rule])


def read_script(given: Any) -> Script:
    """The script of a list of rules, or of its JSON or YAML text. Raises ScriptError."""
    try:
        data = yaml.safe_load(given) if isinstance(given, str | bytes) else given
        return Script(_RULES.validate_python(data or []))
    except yaml.YAMLError as error:
        raise ScriptError(f"neither JSON nor YAML: {error}") from error
    except ValidationError as error:
        mistakes = [f"rule {'.'.join(map(str, one['loc'])) or 'list'}: {one['msg']}" for one in error.errors()]
        raise ScriptError("; ".join(mistakes)) from error


def load_script(path: str | None) -> Script:
    """The script in a file, or the empty one. Raises ScriptError, which names the file."""
    if path is None:
        return Script()
    try:
        return read_script(Path(path).read_text())
    except (OSError, ScriptError) as error:
        raise ScriptError(f"{path}: {error}") from error
