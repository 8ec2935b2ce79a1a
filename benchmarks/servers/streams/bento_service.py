"""Streams on BentoML, as server-sent events."""

import sys
from collections.abc import AsyncGenerator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import bentoml
from functions import event, items_async


@bentoml.service(workers=1, traffic={"timeout": 60, "max_concurrency": 64})
class Streamed:
    @bentoml.api(route="/v2/models/hand/infer_stream")
    async def infer(self, inputs: list) -> AsyncGenerator[str, None]:
        asked = {one["name"]: int(one["data"][0]) for one in inputs}
        async for item in items_async(**asked):
            yield event(item)
