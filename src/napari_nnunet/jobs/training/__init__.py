"""A fold is trained and validated."""
