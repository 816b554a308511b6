"""Stage `convert`: readers, normalisation, held-out split, contamination."""
