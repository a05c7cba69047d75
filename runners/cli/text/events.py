"""Event types, and checks of files of events, as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipelines.operations.events import ColumnDescription, FileCheck, TypeDescription, TypeSummary
from schemas.problems import plural, visible


def list_lines(types: Sequence[TypeSummary]) -> Iterator[str]:
    """A line a type, under a head."""
    head = ("type", "version", "owner", "key", "retention", "what it is")
    rows = [
        (one.name, str(one.version), one.owner, ", ".join(one.key), one.retention, one.description) for one in types
    ]
    yield from _aligned([head, *rows])


def describe_lines(one: TypeDescription) -> Iterator[str]:
    """What a type holds: its columns and rules."""
    yield f"{one.name}: {one.description}"
    yield f"owner {one.owner}; key {', '.join(one.key)}; time {one.time}; kept {one.retention}"
    for number, fingerprint in enumerate(one.fingerprints, 1):
        yield f"version {number}: schema {fingerprint}"
    yield ""
    columns = [(column.name, column.kind, *_column(column)) for column in one.columns]
    yield from _aligned([("column", "kind", "since", "in older events"), *columns])
    yield ""
    rules = [(rule.name, rule.severity, f"{rule.column} {rule.requires}") for rule in one.rules]
    yield from _aligned([("rule", "severity", "what it says"), *rules])


def _column(column: ColumnDescription) -> tuple[str, str]:
    default = "null" if column.default is None and column.nullable else str(column.default)
    return f"version {column.since}", default if column.since > 1 else ""


def check_lines(checks: Sequence[FileCheck]) -> Iterator[str]:
    """What is in the files, and what breaks a rule."""
    for check in checks:
        rejected = check.events - check.accepted
        what = f"{plural(check.events, 'event')} of {check.type}" if check.events else "no events"
        versions = "".join(f", version {number}: {count:,}" for number, count in check.versions.items())
        yield f"{'WRONG' if rejected else 'ok   '}  {check.file}: {what}{versions}; {rejected:,} rejected"
        for rule, count in check.rejected.items():
            yield f"{count:>12,}  {rule}"
            yield from (visible(f"                {sample}") for sample in check.samples[rule])
        yield from (f"{count:>12,}  {rule} (warns only)" for rule, count in check.warned.items())


def _aligned(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
