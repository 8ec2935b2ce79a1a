"""Runs functions in worker processes.

The modules here run in the server. Those of `wire` run in the server and in workers. Those of
`child` run in workers only, under the function's own interpreter.
"""
