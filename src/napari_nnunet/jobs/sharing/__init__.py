"""Models are exported, installed, downloaded, imported from nnU-Net v1."""
