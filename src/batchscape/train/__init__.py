"""How it learns: one training run from a `Cell` to a `Record`, through `model.fit`."""
