"""Conversion between the tensors of files and those of memory, where transformers fuses what files hold apart."""
