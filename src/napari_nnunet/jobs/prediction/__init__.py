"""Images are segmented: one, a folder, by one model or several."""
