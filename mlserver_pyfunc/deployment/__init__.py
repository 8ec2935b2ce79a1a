"""What a platform runs: container images, Kubernetes objects, and their place on a cluster.

Nothing here imports mlserver.
"""
