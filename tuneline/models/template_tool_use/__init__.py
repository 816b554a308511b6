"""Tools in a checkpoint's own chat template: what it can do, where it writes calls, and what it writes of them."""
