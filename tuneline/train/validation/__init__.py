"""Validation by answers: items of the validation rows are answered at each validation, and metrics of them are on the curve."""
