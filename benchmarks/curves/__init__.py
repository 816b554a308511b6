"""Benchmarks of what training says of itself on the way."""
