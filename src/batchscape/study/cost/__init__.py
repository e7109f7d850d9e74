"""The study of costs: time and memory of a batch."""
