"""One protocol, one file per backend."""
