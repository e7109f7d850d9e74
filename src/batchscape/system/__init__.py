"""What the operating system gives: cores, memory, paths, progress, and files written whole or not at all."""
