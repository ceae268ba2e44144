"""Memory as pure state machines: no input or output, no clock."""
