"""A report as a browser finds it, and a summary as an attacker would write it."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

VOID = {"meta", "br", "hr", "img", "link", "input"}
ATTACK = "<script>alert('x')</script>\"' onload=alert(1) &lt;{{ 7 * 7 }}"


class Page(HTMLParser):
    """What stands in a page; an element closed out of order fails at once."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.inside: list[list[str]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self.inside.append(list(self.open))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    @property
    def text(self) -> str:
        return " ".join(" ".join(data for tag, data in self.texts if tag != "style").split())

    @property
    def css(self) -> str:
        return "".join(data for tag, data in self.texts if tag == "style")

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def attacked(value: Any, key: str = "") -> Any:
    """The summary with every text in it replaced, also the names of reasons, phases and stages."""
    if isinstance(value, dict):
        named = key in ("held_out", "outside", "suppressed", "dead_lettered", "phases", "stages_us_per_event")
        return {ATTACK if named else name: attacked(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [attacked(item, key) for item in value]
    return ATTACK if isinstance(value, str) else value
