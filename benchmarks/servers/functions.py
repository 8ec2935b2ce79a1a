"""The workloads as handlers of mlserver-pyfunc."""

import time


def double(x):
    return x * 2


async def double_async(x):
    return x * 2


def head(x):
    return x[:, :1000] * 2


def upper(x):
    return [text.upper() for text in x]


def double_in_2_ms(x):
    time.sleep(0.002)
    return x * 2
