"""Ways to learn data that arrives, compared."""
