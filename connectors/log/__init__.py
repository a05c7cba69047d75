"""The embedded event store: a log in partitions, as segment files in a folder for each type of event."""
