"""Masks as people have them: read as they are, recognised, translated into labels."""
