"""Guard a delivery's ledger, and operate it: show, cancel, reopen, reconcile, rebuild."""
