"""From windows to labels: tiles, inference, decoding, votes."""
