"""Event types: their schemas in every version, their rules, and the frames of their messages."""
