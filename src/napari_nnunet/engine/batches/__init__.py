"""Training batches: patches, chance, augmentation, targets."""
