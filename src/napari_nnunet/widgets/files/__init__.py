"""What napari opens and saves by us: reader, writer, samples; which layers lie over each other, and the trash."""
