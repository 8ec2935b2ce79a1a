"""What a Dockerfile says about the containers that are run from its image."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field, replace

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Image:
    """The configuration of an image.

    Attributes:
        entrypoint: Its ENTRYPOINT.
        command: Its CMD.
        healthcheck: The command of its HEALTHCHECK.
        copies: Sources and target of each COPY from the build context.
    """

    env: dict[str, str] = field(default_factory=lambda: {"PATH": PATH})
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    healthcheck: tuple[str, ...] = ()
    user: str = "0:0"
    working_folder: str = "/"
    copies: tuple[tuple[str, ...], ...] = ()


def parse(text: str) -> Image:
    """Reads a Dockerfile; the image is that of its last stage."""
    stages: dict[str, Image] = {}
    alias, image = "", Image()
    for instruction, argument in _instructions(text):
        if instruction == "FROM":
            stages[alias] = image
            words = [word for word in argument.split() if not word.startswith("--")]
            alias = words[2] if len(words) == 3 else ""
            image = stages.get(words[0], Image())
        elif instruction in _RULES:
            image = _RULES[instruction](image, argument)
    return image


def _instructions(text: str) -> list[tuple[str, str]]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    found = [line.strip().partition(" ") for line in joined.splitlines() if line.strip()]
    return [(name.upper(), argument.strip()) for name, _, argument in found]


def _env(image: Image, argument: str) -> Image:
    pairs = [word.split("=", 1) for word in shlex.split(argument)]
    expanded = {name: _expanded(value, image.env) for name, value in pairs}
    return replace(image, env={**image.env, **expanded})


def _expanded(value: str, env: dict[str, str]) -> str:
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda m: env.get(m[1] or m[2], ""), value)


def _copy(image: Image, argument: str) -> Image:
    words = shlex.split(argument)
    if any(word.startswith("--from=") for word in words):
        return image
    words = [word for word in words if not word.startswith("--")]
    return replace(image, copies=(*image.copies, tuple(words)))


def _words(argument: str) -> tuple[str, ...]:
    if argument.startswith("["):
        return tuple(json.loads(argument))
    return ("/bin/sh", "-c", argument)


def _healthcheck(image: Image, argument: str) -> Image:
    _, _, command = argument.partition("CMD ")
    return replace(image, healthcheck=_words(command.strip()))


_RULES = {
    "ENV": _env,
    "COPY": _copy,
    "CMD": lambda image, argument: replace(image, command=_words(argument)),
    "ENTRYPOINT": lambda image, argument: replace(image, entrypoint=_words(argument)),
    "HEALTHCHECK": _healthcheck,
    "USER": lambda image, argument: replace(image, user=argument),
    "WORKDIR": lambda image, argument: replace(image, working_folder=argument),
}
