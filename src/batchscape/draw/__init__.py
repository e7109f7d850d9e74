"""Pictures of results; each function takes a table and axes, and never trains or loads TensorFlow."""
