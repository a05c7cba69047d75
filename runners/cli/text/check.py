"""The findings of a check as text."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.operations.check import Findings

_MARKS = {True: "ok     ", False: "WRONG  ", None: "note   "}


def check_lines(findings: Findings) -> Iterator[str]:
    """The launch, then a line a finding."""
    yield f"launch {findings.launch_id}: {findings.batches_done} of {findings.batches} batches done"
    for finding in findings.findings:
        yield _MARKS[finding.holds] + finding.text + (f": {finding.detail}" if finding.detail else "")
