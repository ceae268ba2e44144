"""Records a run to MCAP without holding it up, and computes a recorded run's decisions again."""
