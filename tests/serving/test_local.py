"""The examples in the documentation of the local function."""

from __future__ import annotations

import doctest

from mlserver_pyfunc.serving import local


def test_the_examples_work() -> None:
    found = doctest.testmod(local, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.attempted > 5
    assert not found.failed
