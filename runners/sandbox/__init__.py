"""A simulated vendor: it speaks the vendor's API, fails by script, and records the messages that it accepted."""
