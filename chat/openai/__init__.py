"""Wire format of the OpenAI-compatible API: requests, responses, errors."""
