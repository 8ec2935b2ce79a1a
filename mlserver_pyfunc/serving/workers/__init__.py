"""Runs functions in worker processes. `wire` runs on both sides, `child` in workers only."""
