"""Images: a function, its requirements and a server, ready to start without a network."""
