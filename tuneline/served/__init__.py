"""Comparison of a served model with the tuned one: whether it says the same, and why where it does not."""
