"""Conversations that a browser keeps: what the page hands it when both columns have finished."""
