"""What lies beside segmentations: probabilities, scores, postprocessing, recipes, the best configuration."""
