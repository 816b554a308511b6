"""The sections of params.yaml that decide training."""
