"""The owner of each account at the vendor: the first retailer that was sent to with it, for all workers."""

from __future__ import annotations

import logging
from threading import Lock
from typing import Protocol

from schemas.campaigns.accounts import sharing_fix
from schemas.delivery import Account
from schemas.problems import InputError
from transforms.pacing.limiter import AtomicUpdate, WorkspaceLimits
from transforms.streaming.engine_traits import Clock

KEEP_S = 600.0
"""How long an owner is cached before it is read again from the ledger."""
_log = logging.getLogger(__name__)


class Accounts(Protocol):
    """The accounts and workspaces of the live settings: pipelines/rebatch/settings.py."""

    def account(self, retailer: str) -> Account: ...  # InputError when the retailer has none
    def limits(self, retailer: str) -> WorkspaceLimits: ...


class AccountOwners:
    """Refuses the account of another retailer. Safe for several threads. `change` is `DeliveryLedger.change`: a cell
    for each digest of an account (of its key's variable, and of its url and key) holds the owner's name, so that it is
    the same for all workers and after a restart. An owner keeps its account until its settings name another one.
    Retailers whose workspaces have the same `shared_account` may use one. `clock` gives seconds."""

    def __init__(self, change: AtomicUpdate, accounts: Accounts, clock: Clock) -> None:
        self._change, self._accounts, self._clock = change, accounts, clock
        self._lock = Lock()
        self._owners: dict[bytes, tuple[str, float]] = {}
        self._alarmed: set[str] = set()

    def check(self, account: Account) -> str | None:
        """Why a retailer may not be sent to with its account now; None when it may. Call it right before a call to the
        vendor. A problem is logged as an error, once."""
        for digest, (field, value) in account.digests.items():
            owner = self._owner(digest, account.retailer_id)
            if owner == account.retailer_id or self._shared(owner, account):
                continue
            if self._has_left(owner, digest):
                owner = self._take(digest, owner, account.retailer_id)
                if owner == account.retailer_id:
                    continue
            return self._alarm(f"{field} = {value} {sharing_fix(owner, account.retailer_id)}", account.retailer_id)
        return None

    def _owner(self, digest: bytes, retailer: str) -> str:
        """The owner of a digest: this retailer if there was none."""
        with self._lock:
            owner, until = self._owners.get(digest, ("", 0.0))
        return owner if owner and self._clock() < until else self._take(digest, "", retailer)

    def _take(self, digest: bytes, former: str, retailer: str) -> str:
        """The owner after this retailer replaced a former one (empty: none), unless another retailer was faster."""

        def update(raw: bytes | None) -> tuple[bytes, str]:
            name = raw if raw and raw != former.encode() else retailer.encode()
            return name, name.decode()

        owner = self._change(cell_name(digest), update)
        with self._lock:
            self._owners[digest] = owner, self._clock() + KEEP_S
        return owner

    def _shared(self, owner: str, account: Account) -> bool:
        shared = account.shared_account
        return shared is not None and shared == self._accounts.limits(owner).workspace.shared_account

    def _has_left(self, owner: str, digest: bytes) -> bool:
        """Whether the owner has another account now. An owner whose settings are broken keeps its account."""
        try:
            return digest not in self._accounts.account(owner).digests
        except InputError:
            return False

    def _alarm(self, problem: str, retailer: str) -> str:
        with self._lock:
            known = problem in self._alarmed
            self._alarmed.add(problem)
        if not known:
            text = "ALARM: nothing is sent to %s, its events wait: engine.yaml %s"
            _log.error(text, retailer, problem, extra={"retailer": retailer})
        return problem


def cell_name(digest: bytes) -> str:
    """The name of the cell that holds the owner of a digest."""
    return f"account/{digest.hex()}"
