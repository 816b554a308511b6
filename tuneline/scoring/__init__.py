"""One written definition per metric. Every score has a value per item; means and intervals are made elsewhere.

All are 0-100 but `nll_per_char`, in nats. An empty prediction scores 0. Of several references the best counts.
"""
