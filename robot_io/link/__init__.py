"""The link between memrt and a robot node: format, transport, both ends."""
