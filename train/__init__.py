"""Memory labels, LoRA fine-tuning of the high level, flow-matching training of the low level."""
