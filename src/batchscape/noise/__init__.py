"""What the gradient looks like: statistics at frozen weights, and the noise scale."""
