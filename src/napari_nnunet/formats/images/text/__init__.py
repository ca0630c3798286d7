"""NRRD and MetaImage, whose headers are text."""
