"""The fastest possible server over REST: uvicorn, orjson and NumPy, no framework, no checks."""

import argparse

import numpy as np
import orjson
import uvicorn

WORK = {
    "w1": lambda x: x * 2,
    "w2": lambda x: x[:, :1000] * 2,
    "w3": lambda x: x * 2,
}


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    chunks, more = [], True
    while more:
        message = await receive()
        chunks.append(message.get("body", b""))
        more = message.get("more_body", False)
    body = b"".join(chunks)
    name = scope["path"].split("/")[3] if scope["path"].startswith("/v2/models/") else ""
    headers = dict(scope["headers"])
    length = int(headers.get(b"inference-header-content-length", 0))
    head, extra = answer(name, body, length) if body else (b"{}", b"")
    out = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(head + extra))]
    if extra:
        out.append((b"inference-header-content-length", b"%d" % len(head)))
    await send({"type": "http.response.start", "status": 200, "headers": out})
    await send({"type": "http.response.body", "body": head + extra})


def answer(name, body, length):
    payload = orjson.loads(body[:length] if length else body)
    tensor = payload["inputs"][0]
    if name == "w4":
        data = body[length + 4 :].decode() if length else tensor["data"][0]
        upper = data.upper()
        output = {"name": "y", "shape": [1], "datatype": "BYTES"}
        if not length:
            return orjson.dumps({"outputs": [{**output, "data": [upper]}]}), b""
        raw = len(upper).to_bytes(4, "little") + upper.encode()
        output["parameters"] = {"binary_data_size": len(raw)}
        return orjson.dumps({"outputs": [output]}), raw
    if length:
        x = np.frombuffer(body, np.float32, offset=length).reshape(tensor["shape"])
    else:
        x = np.array(tensor["data"], np.float32).reshape(tensor["shape"])
    y = WORK[name](x)
    output = {"name": "y", "shape": list(y.shape), "datatype": "FP32"}
    if length:
        raw = y.tobytes()
        output["parameters"] = {"binary_data_size": len(raw)}
        return orjson.dumps({"outputs": [output]}), raw
    output["data"] = y.ravel()
    return orjson.dumps({"outputs": [output]}, option=orjson.OPT_SERIALIZE_NUMPY), b""


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--http", type=int)
    args = parser.parse_args()
    uvicorn.run(app, port=args.http, log_level="warning", access_log=False)
