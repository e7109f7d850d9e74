"""The cost of a batch in time and memory, and advice which batch size to choose."""
