"""Streams of a runtime written by hand as MLServer's documentation shows."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from functions import items_async
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceResponse


class Streamed(MLModel):
    async def predict_stream(self, payloads):
        async for payload in payloads:
            asked = {one.name: int(one.data[0]) for one in payload.inputs}
            codec = NumpyCodec if asked["size"] else StringCodec
            async for item in items_async(asked["count"], asked["size"], asked["pause_us"]):
                values = item if asked["size"] else [item]
                output = codec.encode_output("y", values)
                yield InferenceResponse(model_name=self.name, outputs=[output])
