"""Stage `tokenize`."""
