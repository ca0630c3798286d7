"""A dataset is measured, planned and preprocessed; what is up to date is told, plans and folds are changed."""
