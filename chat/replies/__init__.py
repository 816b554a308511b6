"""Replies as they stream: deltas, stop strings, and calls, which come whole."""
