"""What `python -m benchmarks.train` runs side by side: one file each, run by the interpreter that has its packages."""
