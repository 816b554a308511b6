"""Tools of raw records: definitions of functions, calls, and what the functions gave."""
