"""`python -m benchmarks.rows`."""

from benchmarks.rows.swaps import main

main()
