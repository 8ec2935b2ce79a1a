"""The mistakes of beginners: `validate` answers each in our words, and at its place."""

import re

import pytest

from mlserver_pyfunc.validation import validate

from .broken import CASES
from .test_validation import write

OF_PYDANTIC = r"[Ii]nput should|valid (dictionary|list|string)|should match|[Ff]ield required"


def test_there_are_more_than_forty():
    assert len(CASES) >= 43


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_no_answer_is_in_pydantics_words(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(case, tmp_path)
    for finding in validate(tmp_path):
        assert not re.search(OF_PYDANTIC, finding.message)
        assert len(finding.message) > 10
