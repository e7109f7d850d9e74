"""What a batch costs in time and memory, and which one to choose."""
