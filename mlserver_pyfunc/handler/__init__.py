"""The handler: found by its name, and bound to the tensors and names that it asks for.

Needs only NumPy and the standard library.
"""

from ..errors import BindError
from .binding import CallPlan, bind
from .resolving import Resolver

__all__ = ["BindError", "CallPlan", "Resolver", "bind"]
