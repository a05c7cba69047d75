"""Events of each type for examples, benchmarks and tests: from the sample data, or generated with a known truth."""
