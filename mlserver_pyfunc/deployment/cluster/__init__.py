"""Applies Kubernetes objects to a cluster. `kubeconfig.connect` comes before other imports."""
