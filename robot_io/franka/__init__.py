"""The Franka Research 3 over libfranka's own protocol, by way of franky-control."""
