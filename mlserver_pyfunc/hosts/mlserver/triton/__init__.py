"""Triton's extensions of the protocol that its clients ask for: they read, and change nothing.

`documents` has the configuration and the statistics of a model, `routes` serves them over REST and
gRPC, `streams` answers streams in Triton's form, and `messages` has Triton's gRPC messages.
"""
