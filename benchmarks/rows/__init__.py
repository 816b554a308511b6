"""Benchmark of `tuneline rows`: what is found of answers that were swapped."""
