"""Stage `fetch`."""
