"""The user's code: imported, found, bound to tensors, called, and its result read.

Needs only NumPy and the standard library, since it also runs in worker processes.
"""
