"""napari, Qt and magicgui, and nothing else: no torch, no arithmetic, no loop over voxels."""
