"""A loaded function: its queue, time limits, batching, metrics and worker processes."""
