"""A runtime written by hand as MLServer's documentation shows, with PandasCodec."""

from answers import answer
from mlserver import MLModel
from mlserver.codecs import PandasCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Framed(MLModel):
    async def load(self) -> bool:
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        frame = self.decode_request(payload, default_codec=PandasCodec)
        return PandasCodec.encode_response(self.name, answer(self.name, frame))
