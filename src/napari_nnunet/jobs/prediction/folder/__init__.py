"""A folder's cases one by one: what is done with each, in this process and by workers of a cluster."""
