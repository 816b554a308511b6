"""What lies on disk between stages: records, token file, safetensors, HTML."""
