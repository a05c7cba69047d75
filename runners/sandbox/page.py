"""The sandbox's page for people: its counts."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

_STYLE = "body{font:16px system-ui;margin:2em}td,th{padding:.2em 1em;text-align:right}td:first-child{text-align:left}"
_LABELS = {
    "calls": "calls",
    "accepted": "messages accepted",
    "events": "different events accepted",
    "accepted_twice": "events accepted more than once",
    "rejected": "recipients rejected",
    "collapsed": "repeated recipients in a call",
    "repeated_calls": "calls repeated with their idempotency key",
    "connections": "connections",
}


def page(summary: Mapping[str, Any], rules: int) -> str:
    """The summary as HTML, which loads itself anew every two seconds."""
    workspaces = [(name, one["calls"], one["accepted"]) for name, one in summary["by_workspace"].items()]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="2">'
        f"<title>Vendor sandbox</title><style>{_STYLE}</style><h1>Vendor sandbox</h1>"
        f"<p>A stand-in: nothing is sent to anybody. {rules} rules are in force.</p>"
        + _table(("", "count"), [(text, summary[key]) for key, text in _LABELS.items()])
        + _table(("answer", "calls"), list(summary["by_status"].items()))
        + _table(("workspace", "calls", "accepted"), workspaces)
        + "</html>"
    )


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    shown = "".join(f"<tr>{''.join(f'<td>{escape(_text(cell))}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>{shown}</table>"


def _text(cell: Any) -> str:
    return f"{cell:,}" if isinstance(cell, int) else str(cell)
