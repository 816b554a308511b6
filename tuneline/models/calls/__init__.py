"""Tool calls in what models write: their syntax, found in a chat template, and the reading of answers by it."""
