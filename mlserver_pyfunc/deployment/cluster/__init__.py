"""Puts Kubernetes objects on a cluster, waits for them, and removes them.

Never imports mlserver; the Kubernetes client is imported only when a cluster is connected to.
"""
