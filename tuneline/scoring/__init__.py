"""One written definition per metric; tuneline.formats.metrics lists them with their versions and units.

Most have a value per item, of which tuneline.evaluate.compare takes the mean; precision, recall and F1 are of the whole
set's counts. Of several references the best counts, but for the NLL, which is of the first. An empty prediction scores 0
wherever overlap is measured; an empty reference is a right answer for extraction and exact match.
"""
