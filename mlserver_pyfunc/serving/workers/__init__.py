"""Functions in processes of their own.

`bootstrap.py`, `program.py`, `calls.py`, `channel.py`, `codec.py`, `wire.py` and `memory.py`
also run in the function's interpreter, which need have nothing but NumPy; the rest is the
server's side.
"""
