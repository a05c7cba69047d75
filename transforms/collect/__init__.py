"""The steps of `collect`: raw events of any source into the event store."""
