"""Many trainings as jobs of a scheduler."""
