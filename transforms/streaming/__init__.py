"""The steps that streaming pipelines share: each takes a pipeline's own item, functions, counters and engine."""
