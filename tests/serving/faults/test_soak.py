from __future__ import annotations

from pathlib import Path

import pytest

from .soak import growth, soak


@pytest.mark.heavy
@pytest.mark.server
def test_a_minute_of_mixed_load_leaves_nothing_behind(tmp_path: Path) -> None:
    run, samples = soak(60, tmp_path)
    assert not run.wrong
    assert sum(run.answers.values()) > 500, run.answers
    found = growth(samples)
    assert found["children"] <= 0, found
    assert found["threads"] <= 2, found
    assert found["descriptors"] <= 8, found
    # Heaps settle for longer than a minute: `python -m tests.serving.faults.soak` tells the rest.
    assert found["rss_mb"] < 40, found
