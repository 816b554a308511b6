"""What GPUs differ in: attention kernels, dtypes, wheels."""
