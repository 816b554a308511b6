"""Studies: seeds × shares of the data × parameters as DVC experiments, and what they tell together."""
