"""Speed and memory benchmarks, side by side in one run; results/ holds figures with the command that made them."""
