"""Limits of what raw files may take."""
