"""What runs on the robot: engines, memory, policies, the two-rate loop. Imports no torch and no transformers."""
