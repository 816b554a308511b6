"""What test files share, by subject: import from here, never from a test module."""
