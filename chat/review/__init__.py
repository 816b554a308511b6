"""Blind review of two models' answers in a browser, or by a judge model: `tuneline review`."""
