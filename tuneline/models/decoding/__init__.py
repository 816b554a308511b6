"""Decoding: what evaluation and the server share."""
