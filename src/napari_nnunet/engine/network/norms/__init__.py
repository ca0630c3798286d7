"""Instance normalisation with the leaky ReLU behind it, for networks that learn on a CPU: torch or compiled loops."""
