"""Models: the named networks, builders of the user's own, the name of a model, and what it minimises and measures."""
