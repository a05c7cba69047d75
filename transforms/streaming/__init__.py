"""The steps of rebatch: they move lists, so that state is read and written once for many events."""
