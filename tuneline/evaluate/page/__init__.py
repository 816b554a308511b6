"""What the report shows: answers, charts, the confusion matrix, figures with their units, and the glossary."""
