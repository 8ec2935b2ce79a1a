"""The function definition, read from YAML, JSON or a digitalhub spec."""

from .fields import PYTHON_VERSIONS as PYTHON_VERSIONS
from .models import BatchDefinition as BatchDefinition
from .models import FunctionDefinition as FunctionDefinition
from .models import ServingDefinition as ServingDefinition
from .models import SourceDefinition as SourceDefinition
from .models import TensorDefinition as TensorDefinition
from .models import examples_of as examples_of
from .reading import FILE_NAME as FILE_NAME
from .reading import Problem as Problem
from .reading import parse as parse
from .reading import problems as problems
from .reading import read as read
