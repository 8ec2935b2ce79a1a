"""What both hosts need: requests and responses of the protocol over REST and gRPC."""
