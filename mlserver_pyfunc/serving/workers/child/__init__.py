"""The worker process, under the function's own interpreter. Needs only NumPy."""
