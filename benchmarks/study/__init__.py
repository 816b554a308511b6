"""How often the intervals of a study hold the truth."""
