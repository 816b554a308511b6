"""User interface texts of the page in English and Chinese."""
