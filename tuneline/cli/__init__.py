"""The `tuneline` command: one module per subcommand, beside the pipeline."""
