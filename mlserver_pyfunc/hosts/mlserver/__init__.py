"""MLServer as the host. Only this package imports mlserver."""
