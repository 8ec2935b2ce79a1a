"""Mixed load with faults on a real server. Every call is accounted for: `python -m tests.chaos`."""
