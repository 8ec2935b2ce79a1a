"""Answers word by word."""


def shout(text):
    for word in text[0].split():
        yield [word.upper()]
