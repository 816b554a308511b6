"""Base models: loading, chat format, likelihood, ChatGLM."""
