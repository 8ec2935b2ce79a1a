"""Triton's extensions of the protocol that its clients ask for: they read, and change nothing."""
