"""What strangers made, a config, a chat template, a tokenizer: none of it is run here, or only in a process with limits."""
