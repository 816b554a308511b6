"""Speed and memory, always side by side in one run; figures are kept under results/ with the command that made them."""
