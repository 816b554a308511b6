"""Where a model is computed: which GPUs have the memory for it."""
