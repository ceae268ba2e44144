"""The link between memrt and a robot node: both ends, their keys, and the format, which `WIRE.md` describes."""
