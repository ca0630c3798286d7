"""Datasets are made, imported, converted, checked and looked at."""
