"""What stands on a command line, held against what the command knows."""
