"""Checks of a function that need neither a run of its code nor its dependencies."""

from .checks import validate as validate
from .findings import RULES as RULES
from .findings import Finding as Finding
