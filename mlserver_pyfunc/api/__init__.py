"""The Python API, whose names the package's root offers: see docs/python-api.md."""
