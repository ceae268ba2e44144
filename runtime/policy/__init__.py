"""The high-level (VLM) and low-level (pi0.5) policies as sessions over engines."""
