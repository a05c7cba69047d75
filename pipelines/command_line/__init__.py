"""Parse command lines strictly, and map errors to exit codes."""
