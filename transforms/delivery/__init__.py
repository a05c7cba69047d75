"""Calls to the vendors: what may leave, one call, and what the ledger makes of its answer."""
