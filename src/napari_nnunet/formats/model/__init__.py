"""Trained models on disk: folders, folds, checkpoints, zips."""
