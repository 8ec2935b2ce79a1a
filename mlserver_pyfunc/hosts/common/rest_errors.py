"""The REST answer to a path or method that a host does not serve."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mlserver_pyfunc.errors import safe_message

_MAX_PATH_CHARS = 200


def asked(request: Request) -> str:
    """Returns the method and path of a request, as errors name them."""
    return f"{request.method} {request.url.path[:_MAX_PATH_CHARS]}"


async def refuse_route(request: Request, error: Any) -> Response:
    """Answers an error of Starlette's router, and says what is expected."""
    allowed = (error.headers or {}).get("Allow")
    text = f"{asked(request)}: {error.detail}"
    if "endpoint" not in request.scope:
        text = (
            f"{asked(request)}: no such path, expected one of the Open Inference Protocol, such as "
            "/v2/models/NAME/infer, /v2/models/NAME or /v2/health/ready"
        )
    elif allowed:
        text = f"{asked(request)}: expected {allowed}, got {request.method}"
    return JSONResponse({"error": safe_message(text)}, error.status_code, error.headers)
