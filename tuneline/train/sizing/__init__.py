"""Sizes of micro-batches: dealing of rows, memory of a step, and what `auto` makes of both."""
