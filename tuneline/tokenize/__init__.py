"""Stage `tokenize`: chat format, truncation, loss mask, data report."""
