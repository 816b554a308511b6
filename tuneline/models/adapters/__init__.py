"""PEFT adapters, ours or others': config, tensors, fit to a base, and those of git revisions."""
