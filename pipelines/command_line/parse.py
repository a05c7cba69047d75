"""Parse a command line strictly: every mistake at once, each as a Problem.

argparse stops at the first mistake, and Beam ignores unknown options: a mistyped --test would launch.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from argparse import Action, ArgumentParser, Namespace
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, NamedTuple

from schemas.problems import InputError, Problem, shown

COMMAND_LINE = "command line"
_NUMBER = re.compile(r"-\d+|-\d*\.\d+")
_KINDS: dict[Any, str] = {int: "must be a whole number", float: "must be a number", json.loads: "must be JSON"}


class Words(NamedTuple):
    """The valid options, as `--name` or `--name=value`; the positional words; and the problems."""

    options: list[str]
    positionals: list[str]
    problems: list[Problem]


def parse_words(parser: ArgumentParser, argv: Sequence[str]) -> Namespace:
    """The parsed arguments. Raises InputError with every mistake."""
    words = read_words(parser, argv)
    problems = [*words.problems, *_missing(parser, words)]
    if problems:
        raise InputError(problems)
    return parser.parse_args([*words.options, *(["--"] if words.positionals else []), *words.positionals])


def read_words(
    parser: ArgumentParser,
    argv: Sequence[str],
    first: Collection[str] = (),
    elsewhere: Mapping[str, str] = MappingProxyType({}),
) -> Words:
    """Read the words of a command line. `first` are preferred as the meaning of a mistyped option; `elsewhere` has
    options of other commands, with what to say about each."""
    return _Reader(parser, list(argv), first, elsewhere).read()


def nearest(name: str, known: Collection[str], first: Collection[str] = ()) -> str | None:
    """The known word that was probably meant: one with this beginning, or one with a similar spelling."""
    name, plain = _plain(name), {_plain(word): word for word in known}
    preferred = {_plain(word) for word in first} & plain.keys()
    for words, cutoff in ((preferred, 0.6), (plain.keys(), 0.7)):
        longer = sorted(word for word in words if word.startswith(name)) if len(name.strip("-")) > 1 else []
        if near := longer[:1] or get_close_matches(name, sorted(words), 1, cutoff):
            return plain[near[0]]
    return None


def did_you_mean(name: str, known: Collection[str]) -> str:
    """`did you mean …? `, or nothing if no known word is near."""
    near = nearest(name, known)
    return f"did you mean {near}? " if near else ""


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")


class _Reader:
    def __init__(
        self, parser: ArgumentParser, argv: list[str], first: Collection[str], elsewhere: Mapping[str, str]
    ) -> None:
        self._parser, self._argv, self._first, self._elsewhere = parser, argv, first, elsewhere
        self._known = parser._option_string_actions
        self._words = Words([], [], [])
        self._seen: set[str] = set()

    def read(self) -> Words:
        at = 0
        while at < len(self._argv):
            word = self._argv[at]
            at += 1
            if word == "--":
                self._words.positionals.extend(self._argv[at:])
                break
            if _is_option(word):
                at += self._option(word, self._argv[at] if at < len(self._argv) else None)
            else:
                self._words.positionals.append(word)
        self._check_positionals()
        return self._words

    def _wrong(self, name: str, value: str, fix: str) -> None:
        self._words.problems.append(Problem(COMMAND_LINE, name, value, fix))

    def _option(self, word: str, after: str | None) -> int:
        """Read an option; the number of words after it that are its value."""
        name, equals, value = word.partition("=")
        action = self._known.get(name)
        if action is None:
            return self._unknown(name, equals, after)
        if isinstance(action, argparse._HelpAction):
            self._words.options.append(name)
            return 0
        appends = isinstance(action, argparse._AppendAction | argparse._ExtendAction)
        repeats = appends or type(action).__module__ != "argparse"
        if action.dest in self._seen and action.nargs != 0 and not repeats:
            self._wrong(name, "given twice", "give it once: only one value can count")
        self._seen.add(action.dest)
        if action.nargs == 0:
            if equals:
                self._wrong(name, shown(value), f"is a flag and takes no value; write {name} alone, or remove it")
            else:
                self._words.options.append(name)
            return 0
        taken = 0
        if not equals:
            if after is None or _is_option(after) or after == "--":
                if action.nargs == "?":
                    self._words.options.append(name)
                else:
                    self._wrong(name, "missing", f"needs a value: {name}={action.metavar or 'VALUE'}")
                return 0
            value, taken = after, 1
        if fix := _refused(self._parser, action, name, value):
            self._wrong(name, shown(value) if value else "empty", fix)
        else:
            self._words.options.append(f"{name}={value}")
        return taken

    def _unknown(self, name: str, equals: str, after: str | None) -> int:
        near = self._nearest(name)
        hint = f"did you mean {near}? " if near else "remove it; "
        fix = self._elsewhere.get(name) or f"{hint}`{self._parser.prog} --help` lists the options"
        self._wrong(name, "not known", fix)
        if equals or after is None or _is_option(after):
            return 0
        meant = self._known.get(near or "")
        takes_value = not self._parser._get_positional_actions() if meant is None else meant.nargs != 0
        return int(takes_value)

    def _nearest(self, name: str) -> str | None:
        return nearest(name, [one for one in self._known if one.startswith("--")], self._first)

    def _check_positionals(self) -> None:
        words = iter(list(self._words.positionals))
        self._words.positionals.clear()
        for action in self._parser._get_positional_actions():
            for word in words:
                if fix := _refused(self._parser, action, "", word):
                    self._wrong(str(action.metavar or action.dest), shown(word) or "empty", fix)
                self._words.positionals.append(word)
                if action.nargs != "*":
                    break
        for word in words:
            near = self._nearest(f"--{word}")
            named = " ".join(str(one.metavar or one.dest) for one in self._parser._get_positional_actions())
            takes = f"`{self._parser.prog}` takes {named or 'options only'}"
            self._wrong(shown(word) or "''", "stray word", (f"did you mean {near}? " if near else "") + takes)


def _is_option(word: str) -> bool:
    return len(word) > 1 and word.startswith("-") and not _NUMBER.fullmatch(word) and " " not in word.partition("=")[0]


def _refused(parser: ArgumentParser, action: Action, name: str, value: str) -> str:
    """What is wrong with a value; empty if it is valid."""
    if not value:
        return "give a value" if action.required or not name else "give a value, or leave the option out"
    try:
        parsed: Any = action.type(value) if callable(action.type) else value
        if isinstance(parsed, float) and not math.isfinite(parsed):
            return "must be a finite number"
        if action.choices is not None and parsed not in action.choices:
            return f"{did_you_mean(value, list(map(str, action.choices)))}one of {', '.join(map(str, action.choices))}"
        if name:
            action(parser, Namespace(**{action.dest: None}), parsed, name)
    except (argparse.ArgumentError, argparse.ArgumentTypeError, TypeError, ValueError) as error:
        return _KINDS.get(action.type) or f"cannot be read ({error})"
    return ""


def _missing(parser: ArgumentParser, words: Words) -> list[Problem]:
    """A problem for each required argument that is missing; one with a wrong value has its problem already."""
    given = {parser._option_string_actions[one.partition("=")[0]].dest for one in words.options}
    given |= {action.dest for one in words.problems if (action := parser._option_string_actions.get(one.field))}
    fix = f"give it; `{parser.prog} --help` explains it"
    needed = [one for one in parser._actions if one.option_strings and one.required and one.dest not in given]
    places = [one for one in parser._get_positional_actions() if one.nargs is None][len(words.positionals) :]
    names = [one.option_strings[0] for one in needed] + [str(one.metavar or one.dest) for one in places]
    return [Problem(COMMAND_LINE, name, "missing", fix) for name in names]
