"""Declarations of features: their sources, keys, aggregations and windows."""
