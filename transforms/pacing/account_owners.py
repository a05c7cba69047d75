"""Which retailer an account at the vendor belongs to: the first one that was sent to with it, for all workers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Lock
from typing import Protocol

from schemas.campaigns.accounts import sharing_fix
from schemas.delivery import Account
from schemas.problems import InputError
from transforms.pacing.limiter import AtomicUpdate, WorkspaceLimits

KEEP_S = 600.0
"""How long an owner is taken from memory before the ledger is asked again."""
_log = logging.getLogger(__name__)


class Accounts(Protocol):
    """The accounts and workspaces as the settings have them now: pipelines/rebatch/settings.py."""

    def account(self, retailer: str) -> Account:
        """A retailer's account; InputError when it has none."""

    def terms(self, retailer: str) -> WorkspaceLimits:
        """A retailer's workspace, among others."""


class AccountOwners:
    """Keeps two retailers from one account. Safe to use from several threads.

    `change` is `DeliveryLedger.change`: a cell for each mark of an account (its key's variable, and its url and key)
    holds the owner's name, so that it is the same for all workers and after a restart. The name of a cell is a digest.
    An owner keeps its account until its settings name another one. Retailers whose workspaces have the same
    `shared_account` may use one. `clock` gives seconds.
    """

    def __init__(self, change: AtomicUpdate, accounts: Accounts, clock: Callable[[], float]) -> None:
        self._change, self._accounts, self._clock = change, accounts, clock
        self._lock = Lock()
        self._owners: dict[bytes, tuple[str, float]] = {}
        self._alarmed: set[str] = set()

    def check(self, account: Account) -> str | None:
        """Why a retailer may not be sent to with its account now, in words; None when it may. To be asked right before
        a call. What is wrong is logged as an error, once."""
        for mark, (field, value) in account.marks.items():
            owner = self._owner(mark, account.retailer_id)
            if owner == account.retailer_id or self._shared(owner, account):
                continue
            if self._has_left(owner, mark):
                owner = self._take_over(mark, owner, account.retailer_id)
                if owner == account.retailer_id:
                    continue
            return self._alarm(f"{field} = {value} {sharing_fix(owner, account.retailer_id)}", account.retailer_id)
        return None

    def _owner(self, mark: bytes, retailer: str) -> str:
        """The owner of a mark, which is this retailer when there was none."""
        with self._lock:
            owner, until = self._owners.get(mark, ("", 0.0))
        if owner and self._clock() < until:
            return owner

        def update(raw: bytes | None) -> tuple[bytes, str]:
            kept = raw or retailer.encode()
            return kept, kept.decode()

        return self._keep(mark, self._change(cell_name(mark), update))

    def _take_over(self, mark: bytes, left: str, retailer: str) -> str:
        """The owner after this retailer took the place of one that has left, unless another one did so before."""

        def update(raw: bytes | None) -> tuple[bytes, str]:
            kept = retailer.encode() if raw in (None, left.encode()) else raw
            return kept or b"", (kept or b"").decode()

        return self._keep(mark, self._change(cell_name(mark), update))

    def _keep(self, mark: bytes, owner: str) -> str:
        with self._lock:
            self._owners[mark] = owner, self._clock() + KEEP_S
        return owner

    def _shared(self, owner: str, account: Account) -> bool:
        shared = account.shared_account
        return shared is not None and shared == self._accounts.terms(owner).workspace.shared_account

    def _has_left(self, owner: str, mark: bytes) -> bool:
        """Whether the owner has another account by now; one whose settings are broken keeps what it has."""
        try:
            return mark not in self._accounts.account(owner).marks
        except InputError:
            return False

    def _alarm(self, problem: str, retailer: str) -> str:
        with self._lock:
            known = problem in self._alarmed
            self._alarmed.add(problem)
        if not known:
            _log.error("ALARM: nothing is sent to %s, its events wait: engine.yaml %s", retailer, problem)
        return problem


def cell_name(mark: bytes) -> str:
    """The name under which the owner of a mark is kept."""
    return f"account/{mark.hex()}"
