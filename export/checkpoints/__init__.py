"""Checkpoints as streams of tensors: whoever wrote the folder, one tensor at a time, under one set of names."""
