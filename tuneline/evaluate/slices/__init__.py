"""Held-out slices of data that grows: what each arrival gained or lost."""
