"""Benchmarks for GPUs: the pipeline's stages, single steps, and what a step would take by its kernels, without a GPU."""
