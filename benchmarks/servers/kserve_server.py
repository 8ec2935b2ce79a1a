"""The workloads as custom models of KServe."""

import uuid

import numpy as np
from kserve import InferOutput, InferResponse, Model, ModelServer


class Workload(Model):
    def __init__(self, name):
        super().__init__(name)
        self.ready = True

    def predict(self, payload, headers=None, response_headers=None):
        x = payload.inputs[0].as_numpy()
        if self.name == "w4":
            y = np.array([_upper(text) for text in x], dtype=object)
            datatype = "BYTES"
        else:
            y = (x[:, :1000] if self.name == "w2" else x) * 2
            datatype = "FP32"
        output = InferOutput("y", list(y.shape), datatype)
        output.set_data_from_numpy(y, binary_data=_wants_binary(payload))
        return InferResponse(payload.id or str(uuid.uuid4()), self.name, [output])


def _wants_binary(payload):
    if getattr(payload, "from_grpc", False):
        return payload.inputs[0].data is None or payload.inputs[0]._raw_data is not None
    outputs = payload.request_outputs or []
    return any((output.parameters or {}).get("binary_data") for output in outputs)


def _upper(text):
    return (text.decode() if isinstance(text, bytes) else text).upper().encode()


if __name__ == "__main__":
    # KServe itself reads --http_port and --grpc_port.
    server = ModelServer(workers=1, access_log_format=None, enable_docs_url=False)
    server.start([Workload(name) for name in ("w1", "w2", "w3", "w4")])
