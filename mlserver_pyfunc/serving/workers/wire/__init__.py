"""Messages and shared memory between server and worker. Needs only NumPy."""
