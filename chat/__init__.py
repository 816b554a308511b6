"""Talk to any model that the pipeline made."""
