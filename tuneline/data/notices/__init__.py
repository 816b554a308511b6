"""What is counted in records because a person should know of it, and stays as it is."""
