"""The feature store: a row of tiles for each entity and partition of the log, and how far the log is folded in."""
