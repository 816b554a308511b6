"""GGUF of a merged model, for llama.cpp and Ollama: converter, its environment, Modelfile."""
