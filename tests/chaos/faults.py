"""What is done to a server while it answers calls."""

from __future__ import annotations

import http.client
import json
import random
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import grpc
import psutil
from tritonclient.grpc import service_pb2 as pb

from tests.hosts.mlserver.process import ServerProcess

from .functions import SUBJECTS
from .usage import workers_of

WRITE_SECONDS = 15
"""Seconds that a client may not read: a client of a run may be slow when the machine is."""

_GARBAGE = (
    b'POST /v2/models/pair/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n{"a":',
    b"POST /v2/models/pair/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST /v2/models/pair/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\nabc",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET /v2/models/pair HTTP/1.1\r\nHost: x\r\n\r\n" * 40,
)


class Faults:
    """Does one thing after another to a server, until it is stopped.

    Attributes:
        counts: How often each thing was done.
        wrong: What went wrong in doing so.

    Args:
        server: Server that is up.
        chance: Source of what to do.
        kills_guardians: Whether guardians are killed, which nobody should do.
    """

    def __init__(self, server: ServerProcess, chance: random.Random, kills_guardians: bool) -> None:
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._server = server
        self._chance = chance
        self._stopped = threading.Event()
        self._frozen: list[psutil.Process] = []
        self._deeds: list[tuple[Callable[[], None], int]] = [
            (self._kill, 6), (self._kill_several, 1), (self._stop, 5), (self._continue, 3),
            (self._reload, 2), (self._race, 2), (self._send_garbage, 4), (self._stall, 2),
            (self._kill_guardian, int(kills_guardians)),
        ]  # fmt: skip

    def run(self) -> None:
        """Does things until `stop` is called."""
        deeds, weights = zip(*self._deeds, strict=True)
        while not self._stopped.wait(self._chance.uniform(0.1, 0.8)):
            (deed,) = self._chance.choices(deeds, weights)
            with suppress(psutil.Error):
                deed()
                self.counts[deed.__name__.strip("_").replace("_", " ")] += 1
        for _ in range(len(self._frozen)):
            with suppress(psutil.Error):
                self._continue()

    def stop(self) -> None:
        """Lets `run` end."""
        self._stopped.set()

    def _kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _kill_several(self) -> None:
        workers, _ = workers_of(self._server.pid)
        for worker in self._chance.sample(workers, min(3, len(workers))):
            with suppress(psutil.Error):
                worker.kill()

    def _kill_guardian(self) -> None:
        _, guardians = workers_of(self._server.pid)
        if guardians:
            self._chance.choice(guardians).kill()

    def _stop(self) -> None:
        self._frozen.append(self._signal(signal.SIGSTOP))

    def _continue(self) -> None:
        if self._frozen:
            self._frozen.pop(self._chance.randrange(len(self._frozen))).resume()

    def _signal(self, number: signal.Signals) -> psutil.Process:
        workers, _ = workers_of(self._server.pid)
        if not workers:
            raise psutil.NoSuchProcess(0)
        worker = self._chance.choice(sorted(workers, key=lambda process: process.pid))
        worker.send_signal(number)
        return worker

    def _reload(self) -> None:
        self._ask(self._chance.choice(list(SUBJECTS)), "load")

    def _race(self) -> None:
        """Loads and unloads one model by several requests at once."""
        churning = [name for name, subject in SUBJECTS.items() if subject.churns]
        model = self._chance.choice(churning)
        actions = [self._chance.choice(["load", "unload"]) for _ in range(4)]
        with ThreadPoolExecutor(len(actions)) as pool:
            list(pool.map(lambda action: self._ask(model, action), actions))

    def _ask(self, model: str, action: str) -> None:
        ask = self._chance.choice([self._ask_by_rest, self._ask_by_grpc])
        try:
            status = ask(model, action)
        except (OSError, http.client.HTTPException) as error:
            status = repr(error)
        unloaded = SUBJECTS[model].churns and action == "unload"
        if status not in ("OK", *(["NOT_FOUND"] if unloaded else [])):
            self.wrong.append(f"{ask.__name__} to {action} {model}: {status}")

    def _ask_by_rest(self, model: str, action: str) -> str:
        connection = http.client.HTTPConnection(self._server.rest_address, timeout=120)
        connection.request("POST", f"/v2/repository/models/{model}/{action}")
        response = connection.getresponse()
        text = response.read().decode(errors="replace")
        connection.close()
        return {200: "OK", 404: "NOT_FOUND"}.get(response.status, f"{response.status} {text}")

    def _ask_by_grpc(self, model: str, action: str) -> str:
        method = f"/inference.GRPCInferenceService/RepositoryModel{action.capitalize()}"
        request = getattr(pb, f"RepositoryModel{action.capitalize()}Request")(model_name=model)
        with grpc.insecure_channel(self._server.grpc_address) as channel:
            try:
                channel.unary_unary(method)(request.SerializeToString(), timeout=120)
            except grpc.RpcError as error:
                code: str = error.code().name
                return code if code == "NOT_FOUND" else f"{code} {error.details()}"
        return "OK"

    def _send_garbage(self) -> None:
        port = int(
            self._chance.choice([self._server.rest_address, self._server.grpc_address]).rpartition(
                ":"
            )[2]
        )
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as peer:
            peer.sendall(self._chance.choice(_GARBAGE))
            peer.settimeout(0.2)
            peer.recv(1000)

    def _stall(self) -> None:
        """Asks for a stream of large items and reads little of it for a while."""
        rows = 100_000
        x = [[4, 0, 0, 1]] * rows  # 4: gives five items
        tensor = {"name": "x", "datatype": "FP32", "shape": [rows, 4], "data": x}
        body = json.dumps({"inputs": [tensor]}).encode()
        head = "POST /v2/models/stream/infer_stream HTTP/1.1\r\nHost: x\r\n"
        head += f"Content-Length: {len(body)}\r\n\r\n"
        with suppress(OSError), _connected(self._server.rest_address) as peer:
            peer.sendall(head.encode() + body)
            peer.recv(100)
            self._stopped.wait(self._chance.choice([0.2, 1, 4, WRITE_SECONDS + 5]))


def _connected(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=20)
