"""Fields of a raw record: what their names mean, which hold the task, which are marks, and which nothing reads."""
