"""The Python API: functions, servers and deployments as objects. See docs/python-api.md.

The package's root offers these names and imports them when they are first used.
"""
