"""Mathematics on arrays: no files, no events, no viewer."""
