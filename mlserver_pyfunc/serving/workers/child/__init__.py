"""The worker's side. Runs under the function's own interpreter and needs only NumPy."""
