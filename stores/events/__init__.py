"""What stands beside the events of a type: its quarantine and its fuse."""
