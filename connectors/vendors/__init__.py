"""Vendors that messages are sent through, by name (open.py) and interchangeable (schemas/delivery.py: Vendor)."""
