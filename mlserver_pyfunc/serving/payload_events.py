"""Sends requests and answers to an HTTP sink, as CloudEvents in the form of KServe's logger.

A request only copies its arrays into a queue. Tasks write them as JSON, on threads, and send them.
What the queue does not hold, or the sink does not take, is dropped and counted.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from functools import partial
from typing import Any
from urllib.parse import quote, unquote
from uuid import uuid4

import orjson

from mlserver_pyfunc.errors import DefinitionError
from mlserver_pyfunc.handler.call import ENCODINGS, InferenceCall
from mlserver_pyfunc.protocol.contract import NamedArray
from mlserver_pyfunc.protocol.nulls import masked
from mlserver_pyfunc.protocol.response import flat_array, json_output, response_body, tensor_head
from mlserver_pyfunc.settings import LOG, ca_file, log_setting, parse_bytes
from mlserver_pyfunc.sources.uri import redacted, split_user

from .metrics import PAYLOAD_EVENTS, FunctionMetrics
from .runner import Answer, logger

QUEUE_EVENTS = 1000
QUEUE_BYTES = 32 * 2**20
"""Events of one function, and bytes of their tensors, that may wait for the sink."""

_SENDERS, _SECONDS = 4, 10.0
_RETRY_SECONDS = (0, 0.2, 1)
_CLOSE_SECONDS, _LOG_SECONDS = 5.0, 60.0
_Json = dict[str, Any]
_Part = tuple[_Json, Any, int]
"""A tensor without its data, what makes it with them, and the bytes that this holds."""
_OBJECT_BYTES = 64  # of an element's own object, and the array's pointer to it
_KINDS = {"all": ("request", "response"), "request": ("request",), "response": ("response",)}
_TYPE = "org.kubeflow.serving.inference"
_HEADER_CHARS = 256
_NUMPY = orjson.OPT_SERIALIZE_NUMPY
_PLAIN = "".join(map(chr, range(0x21, 0x7F))).replace('"', "").replace("%", "")


class PayloadEvents:
    """The events of one function. All methods are for the event loop's thread."""

    def __init__(self, model: str, version: str | None, metrics: FunctionMetrics) -> None:
        self._model, self._version, self._metrics = model, version, metrics
        self._url, user = split_user(log_setting("URL"))
        try:
            import httpx

            self._kinds = _KINDS[log_setting("MODE", "all")]
            self._sample = float(log_setting("SAMPLE", "1"))
            self._limit = parse_bytes(log_setting("MAX_BYTES", "256K"))
            if not 0 <= self._sample <= 1 or not self._url.startswith(("http://", "https://")):
                raise ValueError(f"SAMPLE {self._sample:g} and URL {redacted(self._url)}")
        except (ImportError, KeyError, ValueError) as error:
            expected = (
                "MODE all, request or response, SAMPLE 0 to 1, MAX_BYTES as 64K, URL of http or "
                "https, and httpx (pip install 'mlserver-pyfunc[remote]')"
            )
            raise DefinitionError(f"{LOG}...: expected {expected}, got {error}") from None
        self._hidden = {*log_setting("REDACT").replace(",", " ").split(), *ENCODINGS, "headers"}
        self._headers = _attributes(model)
        name, _, password = map(unquote, user.partition(":"))
        self._client = httpx.AsyncClient(
            auth=(name, password) if user else None,
            verify=ssl.create_default_context(cafile=ca_file()),
            timeout=_SECONDS,
        )
        self._queue: asyncio.Queue[Any] = asyncio.Queue()
        self._waiting = self._bytes = 0
        self._logged_at = -_LOG_SECONDS
        self._tasks = [asyncio.create_task(self._send_all()) for _ in range(_SENDERS)]

    def request(self, call: InferenceCall, refused: Sequence[Any] = ()) -> Any:
        """Adds the event of a request, if it is sampled. Returns what does so for each answer."""
        if random.random() >= self._sample:
            return None
        body: _Json = {"id": call.id.encode("utf-8", "replace").decode() or str(uuid4())}
        own = {"ce-id": _header(body["id"])}
        if call.trace:
            span = call.trace.span.get_span_context()
            own["ce-traceparent"] = f"00-{span.trace_id:032x}-{span.span_id:016x}-01"
        if parameters := self._shown(call.parameters):
            body["parameters"] = parameters
        if call.outputs:
            body["outputs"] = [{"name": name} for name in call.outputs]
        given = call.tensor_parameters
        parts = (
            self._part(NamedArray.of(spec, masked(call.inputs, name)), given.get(name, {}))
            for name in call.inputs
            if not (spec := call.specs[name]).is_nulls
        )
        # The data of inputs that are not decoded have no bound.
        told = {"parameters": {"omitted": "refused"}, "data": []}
        heads = (
            {"name": x.name, "shape": x.shape, "datatype": x.datatype, **told} for x in refused
        )
        self._add("request", own, body, ((x, x, 0) for x in heads) if refused else parts)
        return partial(self._response, own, body["id"])

    def _response(self, own: _Json, event_id: str, answer: Answer) -> None:
        parameters = self._shown(answer.parameters)
        body = response_body(self._model, self._version, event_id, parameters, ())
        self._add("response", own, body, (self._part(each, {}) for each in answer.arrays))

    async def close(self) -> None:
        """Sends the events that wait, for at most 5 s, and counts those that are left."""
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._queue.join(), _CLOSE_SECONDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for _ in range(self._waiting):
            self._end("unloaded", "the function is unloaded")
        await self._client.aclose()

    def _shown(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in parameters.items() if key not in self._hidden}

    def _part(self, named: NamedArray, given: Mapping[str, Any]) -> _Part:
        head, array, given = tensor_head(named), named.array, self._shown(given)
        is_hidden = named.spec.name in self._hidden
        note = "redacted" if is_hidden else f"larger than {self._limit} bytes"
        told = {**head, "parameters": {**given, "omitted": note}, "data": []}
        least, is_object = 2 * array.size, array.dtype == object
        if is_object and least <= self._limit:
            least += sum(map(len, array.flat))
        if is_hidden or least > self._limit:
            return told, told, 0
        # A copy: the handler, or the next call, may write to the array.
        copy = NamedArray(named.spec, array.copy(), named.nulls)
        held = least + array.size * (_OBJECT_BYTES if is_object else array.itemsize)
        return told, partial(json_output, copy, flat_array, given), held

    def _add(self, kind: str, own: _Json, body: _Json, parts: Iterable[_Part]) -> None:
        if kind not in self._kinds:
            return
        side = "inputs" if kind == "request" else "outputs"
        # Whatever is wrong with an event, the request goes on.
        try:
            parts = list(parts)
            without_data = orjson.dumps({**body, side: [told for told, _, _ in parts]})
        except Exception as error:
            self._end("invalid", type(error).__name__)
            return
        size = len(without_data) + sum(size for _, _, size in parts)
        if len(without_data) > self._limit:
            self._end("invalid", f"larger than {self._limit} bytes without its data")
        elif self._waiting >= QUEUE_EVENTS or self._bytes + size > QUEUE_BYTES:
            self._end("full", "the sink is too slow")
        else:
            self._waiting += 1
            self._bytes += size
            now = datetime.now(timezone.utc).isoformat()
            headers = {**self._headers, **own, "ce-type": f"{_TYPE}.{kind}", "ce-time": now}
            whole = {**body, side: [held for _, held, _ in parts]}
            self._queue.put_nowait((size, headers, whole, without_data))

    async def _send_all(self) -> None:
        while True:
            size, headers, body, without_data = await self._queue.get()
            try:
                content = await asyncio.to_thread(orjson.dumps, body, lambda each: each(), _NUMPY)
                fits = len(content) <= self._limit
                problem = await self._send(headers, content if fits else without_data)
                self._end("failed" if problem else "sent", problem)
            except Exception as error:
                self._end("invalid", type(error).__name__)
            self._waiting -= 1
            self._bytes -= size
            self._queue.task_done()

    async def _send(self, headers: dict[str, str], content: bytes) -> str:
        problem = ""
        for seconds in _RETRY_SECONDS:
            await asyncio.sleep(seconds)
            try:
                sent = self._client.post(self._url, content=content, headers=headers)
                status = (await asyncio.wait_for(sent, _SECONDS)).status_code
            except Exception as error:
                problem = type(error).__name__
                continue
            problem = f"status {status}" if status >= 300 else ""
            if status < 500 and status != 429:
                break
        return problem

    def _end(self, outcome: str, problem: str) -> None:
        self._metrics.count(PAYLOAD_EVENTS, outcome)
        if problem and time.monotonic() - self._logged_at >= _LOG_SECONDS:
            self._logged_at = time.monotonic()
            logger.warning(
                'model "%s": an event for %s is dropped (%s): %s; for a minute, more are only '
                "counted, in pyfunc_payload_events_total",
                self._model, redacted(self._url), outcome, problem,
            )  # fmt: skip


def _attributes(model: str) -> dict[str, str]:
    found = {
        "ce-source": log_setting("SOURCE_URI", f"/v2/models/{quote(model, safe='')}"),
        "ce-inferenceservicename": log_setting("INFERENCE_SERVICE", model),
        "ce-namespace": log_setting("NAMESPACE"),
        "ce-endpoint": log_setting("ENDPOINT", "default"),
        "ce-component": log_setting("COMPONENT", "predictor"),
        "ce-specversion": "1.0",
        "content-type": "application/json",
    }
    return {name: _header(value) for name, value in found.items() if value}


def _header(text: str) -> str:
    # As the HTTP binding of CloudEvents says, in its section 3.1.3.2.
    return quote(text, safe=_PLAIN, errors="replace")[:_HEADER_CHARS]
