"""Functions in processes of their own.

The modules here run in the server. `wire` runs in both processes, `child` in the worker's, under
the function's own interpreter.
"""
