"""Results are combined, compared, scored, postprocessed; the best configuration is found."""
