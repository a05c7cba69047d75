"""A vendor that stands in for the real one: it speaks its API, fails by script, and remembers what it sent."""
