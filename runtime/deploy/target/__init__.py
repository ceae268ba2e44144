"""The robot computer's side: what is installed, which bundle is current, and how that changes without ever breaking."""
