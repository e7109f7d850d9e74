"""The study of mini-batch gradients: their noise, and the descent on a quadratic."""
