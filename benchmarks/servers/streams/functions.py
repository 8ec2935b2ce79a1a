"""The handlers that stream: `count` items of a size, with a pause before each.

A text is an item if `size` is 0, else a tensor of `size` numbers. When a generator is closed, the
time is written to a file that is named after the server's port.
"""

import asyncio
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np

CLOSED = Path(tempfile.gettempdir(), f"stream-closed-{os.environ['MLSERVER_HTTP_PORT']}")


def item(number, size):
    return np.full(size, number, np.float32) if size else f"token {number}\n"


def event(item):
    """Returns an item as a server-sent event, with the JSON of the Open Inference Protocol."""
    text = isinstance(item, str)
    tensor = {
        "name": "y",
        "datatype": "BYTES" if text else "FP32",
        "shape": [1] if text else list(item.shape),
        "data": [item] if text else item.tolist(),
    }
    return f"data: {json.dumps({'outputs': [tensor]})}\n\n"


def items(count: int, size: int, pause_us: int):
    try:
        for number in range(count):
            if pause_us:
                time.sleep(pause_us / 1e6)
            yield item(number, size)
    finally:
        CLOSED.write_text(repr(time.time()))


async def items_async(count: int, size: int, pause_us: int):
    try:
        for number in range(count):
            if pause_us:
                await asyncio.sleep(pause_us / 1e6)
            yield item(number, size)
    finally:
        CLOSED.write_text(repr(time.time()))
