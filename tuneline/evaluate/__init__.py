"""Stages `predict_base` and `evaluate`."""
