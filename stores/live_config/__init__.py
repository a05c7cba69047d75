"""Configuration that is read again while a program runs: watched files, and the local copy of a gs:// folder."""
