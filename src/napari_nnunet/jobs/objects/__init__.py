"""Objects: classes are derived from them, found again in probabilities, measured, followed."""
