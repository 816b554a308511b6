"""ChatGLM2 and ChatGLM3 without their remote code: the same network as transformers' native `Glm`, under other names."""
