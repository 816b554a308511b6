"""Client of OpenAI-compatible servers: vLLM, SGLang, llama.cpp, Ollama, TGI, `transformers serve`, and our own."""
