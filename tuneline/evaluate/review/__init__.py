"""Blind review: which of two answers people, or a judge model, prefer without knowing whose they are."""
