"""Hugging Face Trainer: arguments, dataset, loss, callbacks, reports."""
