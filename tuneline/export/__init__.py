"""Stage `export`: merge, equivalence, model card, verification."""
