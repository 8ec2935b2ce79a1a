"""The workloads as custom models of KServe, with its conversions from and to frames."""

from answers import answer
from kserve import Model, ModelServer
from kserve.utils.utils import get_predict_response


class Framed(Model):
    def __init__(self, name):
        super().__init__(name)
        self.ready = True

    def predict(self, payload, headers=None, response_headers=None):
        result = answer(self.name, payload.as_dataframe())
        return get_predict_response(payload, result, self.name)


if __name__ == "__main__":
    # KServe itself reads --http_port and --grpc_port.
    server = ModelServer(workers=1, access_log_format=None, enable_docs_url=False)
    server.start([Framed(name) for name in ("t1", "t2", "t3")])
