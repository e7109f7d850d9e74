"""The gradient: statistics at frozen weights, the noise scale, and the critical batch size."""
