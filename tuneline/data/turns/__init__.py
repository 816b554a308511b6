"""Turns of a conversation: what a raw record becomes, and which of its turns alternate, are learnt and are scored."""
