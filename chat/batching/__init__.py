"""Continuous batching: requests join a model's running batch between two of its steps, and leave when they end."""
