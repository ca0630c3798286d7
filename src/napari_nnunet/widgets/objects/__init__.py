"""Numbered objects in layers: corrected with clicks, followed through time."""
