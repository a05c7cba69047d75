"""Dataflow alone: checks of its options before a job is built, and the submission."""
