"""From checkpoints to a gated bundle of engines. Runs on the workstation."""
