"""Data that grows: arrivals of sources, and the slice of the held-out set that each has."""
