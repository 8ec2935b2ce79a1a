"""Continues a text, token by token: each `yield` is sent as soon as it is made."""

import random
import re
import time
from collections import defaultdict
from itertools import pairwise

TEXT = """
the server loads the function once. the function answers every request with tensors.
the contract says what a request holds. a request that breaks the contract is answered
with an error that says what was expected. the handler streams its answer token by token.
"""


def followers(text):
    """Which words follow each word of the text."""
    words = re.findall(r"\w+|[.]", text)
    table = defaultdict(list)
    for word, following in pairwise(words):
        table[word].append(following)
    return dict(table)


TABLE = followers(TEXT)


def complete(prompt, max_tokens: int = 16, stop: str = "", seed: int = 0):
    """Yields the tokens that follow.

    Args:
        prompt: An array of one str.
        max_tokens: Number of tokens at most.
        stop: A token to end after, such as ".".
        seed: The same prompt and seed always get the same answer.
    """
    choose = random.Random(f"{prompt[0]} {seed}").choice
    word = prompt[0].split()[-1].lower() if prompt[0].split() else "."
    for _ in range(max_tokens):
        word = choose(TABLE.get(word) or sorted(TABLE))
        yield {"token": word if word == "." else f" {word}"}
        time.sleep(0.02)  # as long as a small language model takes
        if word == stop:
            break
