"""Trainers that `python -m benchmarks.train` compares: a module each, whose `train(job)` runs in the current folder."""
