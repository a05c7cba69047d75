"""What guards a delivery's ledger, and what a person does to it: show, cancel, reopen, reconcile, rebuild."""
