"""Where tasks run: this process, worker processes, and a process that may crash."""
