"""Chat with any model of the pipeline: in the terminal, on a web page, or by an OpenAI-compatible API."""
