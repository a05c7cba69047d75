"""Refuse unknown names on the command line, with the known ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

import duckdb

from schemas.problems import InputError, Problem

_SHOWN = 12


def find_unknown(option: str, given: Iterable[str], known: Iterable[str | None], where: str) -> list[Problem]:
    """A problem for each name that is not known; `where` says what holds the known ones."""
    names = sorted({name for name in known if name})
    unknown = [name for name in given if name not in names]
    return [Problem("command line", option, name, _fix(name, names, where)) for name in unknown]


def check_names(con: duckdb.DuckDBPyConnection, campaign: str | None, retailers: Sequence[str], where: str) -> None:
    """Raises InputError for a campaign and for retailers without a receipt."""
    campaigns = [row[0] for row in con.execute("SELECT DISTINCT campaign_id FROM receipts").fetchall()]
    ids = [row[0] for row in con.execute("SELECT DISTINCT retailer_id FROM receipts").fetchall()]
    problems = find_unknown("--campaign", [campaign] if campaign is not None else [], campaigns, where)
    problems += find_unknown("--retailer", retailers, ids, where)
    if problems:
        raise InputError(problems)


def _fix(name: str, known: Sequence[str], where: str) -> str:
    if not known:
        return f"is not in {where}: there are none"
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"is not in {where}; {hint}known: {list_names(known)}"


def list_names(names: Sequence[str]) -> str:
    """The first names, and the number of the others."""
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
