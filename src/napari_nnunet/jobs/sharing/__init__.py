"""Models are exported, installed, downloaded, imported from nnU-Net v1, made 8-bit and carried elsewhere."""
