"""Weights and activations in few bits: packing, scale search, insertion into graph skeletons, and the audit."""
