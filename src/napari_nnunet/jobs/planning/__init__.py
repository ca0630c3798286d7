"""A dataset is measured, planned and preprocessed."""
