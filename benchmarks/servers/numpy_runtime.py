"""A runtime written by hand as MLServer's documentation shows, with NumpyCodec and StringCodec."""

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Doubled(MLModel):
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        x = self.decode(payload.inputs[0], default_codec=NumpyCodec)
        y = (x[:, :1000] if self.name == "w2" else x) * 2
        output = NumpyCodec.encode_output("y", y)
        return InferenceResponse(model_name=self.name, outputs=[output])


class Upper(MLModel):
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        texts = StringCodec.decode_input(payload.inputs[0])
        output = StringCodec.encode_output("y", [text.upper() for text in texts])
        return InferenceResponse(model_name=self.name, outputs=[output])


class Constant(MLModel):
    """The fastest possible runtime of MLServer: returns the answer of W1 to every request."""

    async def load(self) -> bool:
        x = np.random.default_rng(0).random((1, 4), dtype=np.float32)
        self._outputs = [NumpyCodec.encode_output("y", x * 2)]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        return InferenceResponse.model_construct(model_name=self.name, outputs=self._outputs)
