"""Fails on one value, and answers wrongly on another."""


def fail_on_seven(x):
    if 7 in x:
        raise RuntimeError("seven is not to my taste")
    if 8 in x:
        return x.reshape(1, -1)
    return x * 2
