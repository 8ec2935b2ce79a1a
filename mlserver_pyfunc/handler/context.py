"""The context: the object that user code shares from load to unload."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Response:
    """A result in the form of Nuclio: `context.Response(body=..., status_code=...)`.

    Attributes:
        headers: HTTP headers or gRPC metadata of the response. Not sent with an error.
        body: The protocol's inference response, as a mapping or as JSON text.
        content_type: Ignored; part of Nuclio's signature.
        status_code: HTTP status. 400 and above answer with an error whose text is the body.
    """

    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    content_type: str = "application/json"
    status_code: int = 200


class Context:
    """An object that lives as long as the loaded function and accepts any attribute.

    Attributes:
        logger: Logger of the server.
        model_name: Name of the served model.
        model_version: Version of the served model; None if it has none.
        definition: The function definition as a mapping.
        source_dir: Folder of the source tree; for inline code, folder of the definition.
        init_parameters: Init parameters of the definition.
    """

    Response = Response

    def __init__(
        self,
        *,
        logger: logging.Logger | logging.LoggerAdapter[logging.Logger],
        model_name: str,
        model_version: str | None,
        definition: Mapping[str, Any],
        source_dir: Path,
        init_parameters: Mapping[str, Any],
    ) -> None:
        self.logger = logger
        self.model_name = model_name
        self.model_version = model_version
        self.definition = definition
        self.source_dir = source_dir
        self.init_parameters = init_parameters

    # Only so that type checkers accept attributes that user code sets.
    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f'context has no "{name}": set it in the init function')
