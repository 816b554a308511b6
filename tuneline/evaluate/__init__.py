"""Stages `predict_base` and `evaluate`: generation, metrics, statistics, report."""
