"""What is next to segmentations: probabilities, scores, postprocessing, recipes, the best configuration."""
