"""Messages and shared memory between server and worker. Runs on both sides; needs only NumPy."""
