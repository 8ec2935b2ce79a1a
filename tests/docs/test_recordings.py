"""The pages show recorded sessions as they were recorded."""

import pytest

from tests.places import DOCS


@pytest.mark.parametrize("recording", sorted(DOCS.glob("recordings/*.txt")), ids=lambda p: p.stem)
def test_a_recording_is_on_a_page_as_it_is(recording):
    assert any(recording.read_text() in page.read_text() for page in DOCS.glob("*.md"))
