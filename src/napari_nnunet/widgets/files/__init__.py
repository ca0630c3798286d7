"""What napari opens and saves by us: reader, writer, samples."""
