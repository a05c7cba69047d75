"""Features: events become tiles, tiles are merged into the rows of entities, rows give the values of features."""
