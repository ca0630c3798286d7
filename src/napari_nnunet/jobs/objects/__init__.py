"""Objects: classes are derived from them, found again in probabilities, compared, measured."""
