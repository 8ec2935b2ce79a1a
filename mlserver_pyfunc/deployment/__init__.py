"""Puts functions on a platform: container images, Kubernetes manifests, and clusters."""
