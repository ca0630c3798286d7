"""Images larger than memory are segmented block by block."""
