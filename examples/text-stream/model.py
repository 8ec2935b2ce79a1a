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


def complete(prompt, max_tokens=None):
    """`prompt` is an array of one str. The same prompt always gets the same answer."""
    choose = random.Random(prompt[0]).choice
    word = prompt[0].split()[-1].lower() if prompt[0].split() else "."
    for _ in range(16 if max_tokens is None else int(max_tokens[0])):
        word = choose(TABLE.get(word) or sorted(TABLE))
        yield {"token": word if word == "." else f" {word}"}
        time.sleep(0.02)  # as long as a small language model takes
