"""Values of many overlapping slices of ordered events at once."""
