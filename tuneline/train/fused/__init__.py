"""Forward and backward passes of several small operations as few large ones."""
