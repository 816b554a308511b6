"""Leaks: training rows that share what tells a held-out item apart, and how many of them a source may have."""
