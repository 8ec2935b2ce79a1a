"""W1 on LitServe, over its own protocol with the JSON of the Open Inference Protocol."""

import argparse

import litserve
import numpy as np


class Doubled(litserve.LitAPI):
    def setup(self, device):
        pass

    def decode_request(self, request):
        tensor = request["inputs"][0]
        return np.asarray(tensor["data"], dtype=np.float32).reshape(tensor["shape"])

    def predict(self, x):
        return x * 2

    def encode_response(self, y):
        output = {
            "name": "y",
            "shape": list(y.shape),
            "datatype": "FP32",
            "data": y.ravel().tolist(),
        }
        return {"outputs": [output]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--http", type=int)
    args = parser.parse_args()
    api = Doubled(api_path="/v2/models/w1/infer")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(port=args.http, generate_client_file=False, log_level="warning", num_api_servers=1)
