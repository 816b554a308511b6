"""Architectures tried on a small random slice, before a weight is read."""
