"""The pipeline features: events of the event store, folded into rows of the feature store."""
