"""Episodes that were recorded elsewhere, as the training data that `memrt sim record` writes: one file per source."""
