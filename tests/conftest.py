from __future__ import annotations

from hypothesis import HealthCheck, settings

# A shared machine is slow now and then: that is no failure of what is under test.
settings.register_profile(
    "default", deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("default")
