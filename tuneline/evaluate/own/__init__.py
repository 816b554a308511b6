"""Metrics of the user's own in an evaluation: tried before the model answers, scored, and compared as the others are."""
