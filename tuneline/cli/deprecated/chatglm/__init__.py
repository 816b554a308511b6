"""Earlier package of the ChatGLM adapter's import."""
