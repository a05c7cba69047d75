"""Tells a broken template from a recipient that it does not fit: a broken one renders for nobody."""

from __future__ import annotations

from collections import Counter
from threading import Lock

from schemas.delivery import Answer

MOST_FAILURES = 10  # in a row, without one message of the retailer: then the template is at fault
REASON = "template_error"


class TemplateFailures:
    """Counts the failures in a row of each retailer's templates; safe for several threads."""

    def __init__(self) -> None:
        self._failures: Counter[str] = Counter()
        self._lock = Lock()

    def judge(self, retailer: str, answer: Answer, events: int) -> Answer:
        """The answer to a call of so many events; if the template is at fault, an answer that blocks the workspace, so
        that its events wait until the template is corrected."""
        failed = sum(reason == REASON for reason in answer.rejected.values())
        if answer.kind != "sent" or not failed:
            return answer
        with self._lock:
            if failed < events:  # it renders for other recipients
                self._failures[retailer] = 0
                return answer
            self._failures[retailer] += failed
            if self._failures[retailer] < MOST_FAILURES:
                return answer
        return Answer("blocked", REASON, answer.detail)

    def works(self, retailer: str) -> None:
        """A message of the retailer was sent."""
        if self._failures.get(retailer):
            with self._lock:
                self._failures[retailer] = 0
