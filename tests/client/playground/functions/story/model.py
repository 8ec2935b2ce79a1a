"""Tells a story, word by word."""

import time

from mlserver_pyfunc import InferenceError


def tell(topic):
    if topic[0] == "nothing":
        raise InferenceError("there is no story about nothing", 422)
    for word in f"Once upon a time there was a {topic[0]} that could compute".split():
        time.sleep(5 if topic[0] == "pause" else 0.05)
        yield [word]
