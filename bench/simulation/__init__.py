"""A discrete-event simulation of rebatch: broker, workers, pacing, ledger, vendor, autoscaler (docs/scale.md)."""
