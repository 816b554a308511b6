"""What a person sees of a run: lines in a terminal's width, plain lines in a log, and the log of a stage that failed."""
