"""What the client over REST makes of a server that is not there yet."""

from __future__ import annotations

import socket
import threading

import pytest

from mlserver_pyfunc.client.rest import RestClient


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n["])
def test_no_model_is_ready_if_the_server_ends_during_its_answer(answer: bytes) -> None:
    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        client = RestClient(f"http://127.0.0.1:{listening.getsockname()[1]}")
        assert client.ready_models() == []
        client.close()
        thread.join()
