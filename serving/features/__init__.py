"""Reads of features: in process, and by a server that speaks HTTP and gRPC."""
