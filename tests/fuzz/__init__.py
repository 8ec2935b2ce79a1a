"""Fuzzing: feeds bytes that nobody wrote to every decoder of bytes that somebody else sends."""
