"""`python -m batchscape`."""

from batchscape.cli import main

main()
