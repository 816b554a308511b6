"""The command `tuneline study`, and the times that it plans by."""
