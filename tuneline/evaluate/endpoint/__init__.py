"""Answers from a server instead of this process: `evaluate.backend: endpoint`."""
