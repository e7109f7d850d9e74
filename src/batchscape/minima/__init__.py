"""What the minimum looks like: the loss as a function of the weights, lines between minima, and the Hessian."""
