"""How good a segmentation is, and which parts of it to keep."""
