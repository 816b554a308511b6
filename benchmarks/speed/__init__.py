"""All goals for speed and memory: figures beside goals, the default pipeline, the report of training side by side."""
