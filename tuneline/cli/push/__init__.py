"""What `tuneline release --push` does: a verified release goes to a model hub, whole, in one commit, or not at all."""
