"""Layers larger than memory: segmented block by block, into a result on disk that fills while one looks at it."""
