"""Images that are read box by box (OME-Zarr, zarr, TIFF, NIfTI, arrays), and label images written chunk by chunk."""
