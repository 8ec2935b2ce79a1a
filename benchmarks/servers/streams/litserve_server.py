"""Streams on LitServe, as server-sent events."""

import argparse

import litserve
from functions import event, items


class Streamed(litserve.LitAPI):
    def setup(self, device):
        pass

    def decode_request(self, request):
        return {one["name"]: int(one["data"][0]) for one in request["inputs"]}

    def predict(self, asked):
        yield from items(**asked)

    def encode_response(self, outputs):
        yield from map(event, outputs)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--http", type=int)
    args = parser.parse_args()
    api = Streamed(api_path="/v2/models/hand/infer_stream", stream=True)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(port=args.http, generate_client_file=False, log_level="warning", num_api_servers=1)
