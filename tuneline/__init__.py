"""What the stages of the pipeline must agree on, and what is pure and testable without torch."""
