"""Calls the models of `tests.handler.forty` in a process that has no server's protobuf messages.

Reads `{model: case}` from standard input, and prints what each model answers.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from mlserver_pyfunc import connect
from tests.handler.forty import FORTY, plain, real


def main(url: str, models: dict[str, str]) -> dict[str, Any]:
    cases = {case.name: case for case in FORTY}
    answers: dict[str, Any] = {}
    for model, name in models.items():
        case = cases[name]
        with connect(url, model) as connected:
            sent = real(case.given)
            if "yield" in case.code:
                answer = next(iter(connected.stream(sent, parameters=case.parameters)))
            else:
                answer = connected.infer(sent, parameters=case.parameters)
        answers[model] = {key: plain(array) for key, array in answer.items()}
    return answers


if __name__ == "__main__":
    # Pictures are bytes: latin-1 keeps them.
    text = json.dumps(
        main(sys.argv[1], json.load(sys.stdin)), default=lambda b: b.decode("latin-1")
    )
    print(text)
