"""Stages `predict_base`, `evaluate` and `report`: generation, metrics, statistics, report."""
