"""Results are joined, compared, scored, postprocessed; the best configuration is found."""
