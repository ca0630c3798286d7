"""The Python door: what the command line does, as plain functions without generators.

Keywords are the fields of the requests (``napari_nnunet.schema.requests``), as the command line's flags are.
"""
