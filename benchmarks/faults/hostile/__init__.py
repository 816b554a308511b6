"""Hostile files by what they are: each function makes one."""
