"""Pages of the site within the docks, without internet."""
