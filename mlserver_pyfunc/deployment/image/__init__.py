"""Images: a function, what it requires and a server, ready to start with no network.

Imports no MLServer.
"""
