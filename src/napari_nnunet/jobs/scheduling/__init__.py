"""Many trainings as jobs of a scheduler: which there are, what each needs, what is prepared before."""
