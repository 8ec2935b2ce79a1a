"""What user code is given as long as the function is loaded: the context.

Needs only the standard library.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Response:
    """An answer in the manner of Nuclio: `context.Response(body=..., status_code=...)`.

    Attributes:
        body: The protocol's inference response, as a mapping or as JSON.
        status_code: 400 and above answers with an error; its text is the body.
    """

    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    content_type: str = "application/json"
    status_code: int = 200


class Context:
    """Lives as long as the loaded function; takes any attribute that user code sets.

    Attributes:
        logger: Writes to the server's log.
        model_name: As served.
        model_version: As served; None without one.
        definition: The function definition as a mapping.
        source_dir: Folder of the source tree; of the definition, for inline code.
        init_parameters: As the definition gives them.
    """

    Response = Response

    def __init__(
        self,
        *,
        logger: logging.Logger,
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

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f'context has no "{name}": set it in the init function')
