"""General prompts of a team's own."""
