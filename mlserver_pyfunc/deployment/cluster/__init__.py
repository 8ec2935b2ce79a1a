"""Applies Kubernetes objects to a cluster. All but `addresses` and `errors` need its client."""
