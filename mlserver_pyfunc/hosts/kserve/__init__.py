"""KServe's ModelServer as host. It alone imports kserve, and never MLServer."""
