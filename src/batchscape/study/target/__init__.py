"""The study of time to a target: which batch size gets there first."""
