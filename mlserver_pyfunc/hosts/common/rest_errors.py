"""The REST answer to a path or method that a host does not serve."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mlserver_pyfunc.errors import safe_message

MAX_PATH_CHARS = 200


async def refuse_route(request: Request, error: Any) -> Response:
    """Answers an error of Starlette's router, and says what is expected."""
    asked = f"{request.method} {request.url.path[:MAX_PATH_CHARS]}"
    allowed = (error.headers or {}).get("Allow")
    text = f"{asked}: {error.detail}"
    if "endpoint" not in request.scope:
        text = (
            f"{asked}: no such path, expected one of the Open Inference Protocol, such as "
            "/v2/models/NAME/infer, /v2/models/NAME or /v2/health/ready"
        )
    elif allowed:
        text = f"{asked}: expected {allowed}, got {request.method}"
    return JSONResponse({"error": safe_message(text)}, error.status_code, error.headers)
