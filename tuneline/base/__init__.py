"""Stage `base`: canonical form and inspection of a base model."""
