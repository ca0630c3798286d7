"""Numbered objects of images larger than memory."""
