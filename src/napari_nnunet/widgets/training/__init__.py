"""The Train dock: what is trained and how, curves and films of those that run, folds, suspects, corrections."""
