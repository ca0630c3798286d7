"""From the image grid to the network grid and back: crop, normalise, resample."""
