"""Training rows that may hurt: conflicts, outliers, doubtful labels, and answers that do not belong to their question."""
