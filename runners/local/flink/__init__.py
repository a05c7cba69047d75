"""A local Flink cluster and what submits to it."""
