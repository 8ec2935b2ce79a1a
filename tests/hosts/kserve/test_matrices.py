"""The matrices of MLServer's tests, against KServe's server: it must answer alike."""

from tests.hosts.mlserver.test_protocol import *  # noqa: F403
from tests.hosts.mlserver.test_rejections import *  # noqa: F403
from tests.hosts.mlserver.test_streaming import *  # noqa: F403

# These switch off what only MLServer's host has.
del test_raw_contents_of_another_size_are_refused_without_the_fast_path_too  # noqa: F821
