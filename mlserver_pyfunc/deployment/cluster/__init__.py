"""Applies Kubernetes objects to a cluster, waits for them, and removes them.

`kubeconfig.connect` comes first: it tells how to install the Kubernetes client, which the other
modules import.
"""
