"""Earlier `python -m tuneline.<name>` commands, which print their new name; removed in the next release."""
