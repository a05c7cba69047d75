"""What a single model cannot hold: limits that many fields share, and rules over several fields or files."""
