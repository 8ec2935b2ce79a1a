"""Servers that call a function: one package each."""
