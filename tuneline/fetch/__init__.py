"""Stage `fetch`: data packages."""
