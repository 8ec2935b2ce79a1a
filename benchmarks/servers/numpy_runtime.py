"""A runtime as MLServer's documentation has one write it, with NumpyCodec and StringCodec."""

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
