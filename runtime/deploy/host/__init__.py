"""The workstation's side of `memrt flash`."""
