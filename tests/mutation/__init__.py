"""Mutation testing: changes the code in small ways, and looks for a test that notices."""
