"""Stage `train`: methods, batches, loss, DeepSpeed, resume checkpoints."""
