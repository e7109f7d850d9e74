"""The loss landscape: the loss as a function of the weights, lines and planes, sharpness and the Hessian."""
