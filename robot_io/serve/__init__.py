"""A bundle's policies behind the protocols that other people's robots and benchmarks speak, and the way back."""
