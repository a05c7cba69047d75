"""The delivery ledger (schemas/delivery.py has its contract): SQLite and Firestore, named by URI (open.py)."""
