"""User code: importing it, finding its callables, binding, calling, and reading its results.

Needs only NumPy and the standard library, because workers in other interpreters import it.
"""
