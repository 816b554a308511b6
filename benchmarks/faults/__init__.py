"""Attacks on every stage and on the server: what survives, what is refused in one sentence, and what falls."""
