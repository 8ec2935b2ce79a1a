"""The servers of files and repositories that the tests of sources have."""

from tests.sources.conftest import file_server as file_server
from tests.sources.conftest import repository as repository
