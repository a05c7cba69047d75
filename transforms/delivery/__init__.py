"""Delivery: batches of events, calls to vendors, and the settlement of their answers."""
