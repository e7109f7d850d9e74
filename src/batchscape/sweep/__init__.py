"""Many runs: a store with one record a cell, and executors that fill it."""
