"""The Dockerfile of a function's image, as text.

Nothing here needs a recent engine: no `# syntax=` line, no heredocs, and mounts only where the
engine has them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mlserver_pyfunc.deployment.names import BuildError, is_variable

FUNCTION = "/opt/function"
SERVER = "/opt/mlserver"
REQUIREMENTS = "/opt/requirements"
ENVIRONMENT = "/opt/environment"
SERVER_PYTHON = "/opt/python"
UV = "uv>=0.7,<1"

CA_SECRET = "ca-bundle"
APT_SECRET = "apt-ca"
_SECRETS = "/run/secrets"

HEALTHCHECK = (
    "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + "
    "os.environ.get('MLSERVER_HTTP_PORT', '8080') + '/v2/health/ready', timeout=4)"
)

# What each program that a build runs calls its file of authorities.
_CA_VARIABLES = (
    "SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
)  # fmt: skip
# Secrets of these names are handed to the programs that read such files.
_KNOWN_SECRETS = {"netrc": "NETRC", "pip.conf": "PIP_CONFIG_FILE", "uv.toml": "UV_CONFIG_FILE"}


@dataclass(frozen=True)
class Recipe:
    """What a Dockerfile says.

    Attributes:
        base: The image to build on.
        python: Version that the base has.
        server_image: An image whose /usr/local holds the server's Python; None where the
            base's own will do.
        server_python: Version of the server's Python.
        own: Whether the function has an environment of its own.
        requirements: Whether there is anything to install for the function.
        hashed: Whether every requirement of the function has a hash.
        wheel: Name of this package's wheel.
        instructions: Shell commands, run first.
        env: Variables of the function's.
        settings: Variables of the server's.
        labels: Of the image.
        arguments: Names of build arguments.
        secrets: Ids of secrets that every step may read.
        mounts: Whether the engine has secret and cache mounts.
    """

    base: str
    python: str
    server_image: str | None
    server_python: str
    own: bool
    requirements: bool
    hashed: bool
    wheel: str
    instructions: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    arguments: Sequence[str] = ()
    secrets: Sequence[str] = ()
    mounts: bool = True


def render(recipe: Recipe) -> str:
    """Writes the Dockerfile.

    Raises:
        BuildError: A value cannot stand in one.
    """
    stages = [_base(recipe), _tools(recipe), _server(recipe)]
    if recipe.server_image:
        stages.insert(0, [f"FROM {recipe.server_image} AS python"])
    if recipe.requirements:
        stages.append(_requirements(recipe))
    stages.append(_image(recipe))
    head = "# Written by mlserver-pyfunc build: docs/build.md says what is in the image.\n\n"
    return head + "\n".join("\n".join(stage) + "\n" for stage in stages)


def quoted(value: str, where: str) -> str:
    """A value of ENV or LABEL.

    Raises:
        BuildError: It has a line end or another control character.
    """
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise BuildError(f"{where}: a Dockerfile takes no line ends or control characters")
    return '"' + re.sub(r'(["\\$])', r"\\\1", value) + '"'


def _base(recipe: Recipe) -> list[str]:
    return [
        f"FROM {recipe.base} AS base",
        "# hadolint ignore=DL3002",
        "USER 0",
        *_arguments(recipe),
        *_env(recipe.env, "build.env"),
        *[_instruction(line, recipe) for line in recipe.instructions],
    ]


def _tools(recipe: Recipe) -> list[str]:
    return [
        "# Nothing of this stage is in the image but what is copied from those built on it.",
        "FROM base AS tools",
        *_arguments(recipe),
        "COPY tools.sh /build/tools.sh",
        _run(recipe, [f'sh /build/tools.sh {recipe.python} "{UV}"']),
        *_env(
            {
                "UV_CACHE_DIR": "/root/.cache/uv",
                "UV_LINK_MODE": "copy",
                "UV_PYTHON_DOWNLOADS": "never",
                "UV_COMPILE_BYTECODE": "1",
                # Bytecode by content: it holds whatever times an engine gives the files.
                "PYC_INVALIDATION_MODE": "UNCHECKED_HASH",
            },
            "tools",
        ),
        "ENV PATH=/build/uv/bin:$PATH",
    ]


def _server(recipe: Recipe) -> list[str]:
    python = '"$(cat /build/python)"'
    lines = ["FROM tools AS server", *_arguments(recipe)]
    if recipe.server_image:
        python = f"{SERVER_PYTHON}/bin/python{recipe.server_python}"
        lines += [
            f"COPY --from=python /usr/local {SERVER_PYTHON}",
            "COPY python.sh /build/python.sh",
            f"RUN sh /build/python.sh {SERVER_PYTHON} {recipe.server_python} {recipe.server_image}",
        ]
    packages = f"{SERVER}/lib/python{recipe.server_python}/site-packages"
    info = f"{packages}/{recipe.wheel.partition('-py3')[0]}.dist-info"
    path = f'import site; site.addsitedir("{REQUIREMENTS}")'
    return [
        *lines,
        "COPY server.txt /build/server.txt",
        _run(
            recipe,
            [
                f"uv venv --quiet --python {python} {SERVER}",
                _install(f"{SERVER}/bin/python", "--require-hashes -r /build/server.txt"),
                f"echo '{path}' > {packages}/function.pth",
                # A third of the largest package, which nothing imports.
                f"rm -rf {packages}/pandas/tests",
            ],
        ),
        f"COPY {recipe.wheel} /build/{recipe.wheel}",
        _run(
            recipe,
            [
                _install(f"{SERVER}/bin/python", f"--no-deps /build/{recipe.wheel}"),
                # uv notes when it saw the file, which no two builds have in common.
                f"rm -f {info}/uv_cache.json",
                f"sed -i /uv_cache.json/d {info}/RECORD",
            ],
        ),
    ]


def _requirements(recipe: Recipe) -> list[str]:
    python = '"$(cat /build/python)"'
    what = f"--no-deps {'--require-hashes ' if recipe.hashed else ''}-r /build/requirements.txt"
    commands = [_install(python, f"--target {REQUIREMENTS} {what}")]
    if recipe.own:
        commands = [
            f"uv venv --quiet --python {python} {ENVIRONMENT}",
            _install(f"{ENVIRONMENT}/bin/python", what),
        ]
    return [
        "FROM tools AS requirements",
        *_arguments(recipe),
        "COPY requirements.txt /build/requirements.txt",
        _run(recipe, commands),
    ]


def _image(recipe: Recipe) -> list[str]:
    settings = {**recipe.settings, "MLSERVER_MODELS_DIR": FUNCTION}
    lines = []
    if recipe.server_image:
        lines.append(f"COPY --from=server {SERVER_PYTHON} {SERVER_PYTHON}")
        lines.append("COPY --from=server /build/etc /etc")
    lines.append(f"COPY --from=server {SERVER} {SERVER}")
    if recipe.requirements:
        place = ENVIRONMENT if recipe.own else REQUIREMENTS
        lines.append(f"COPY --from=requirements {place} {place}")
    if recipe.own:
        lines.append(f"COPY environment.json {ENVIRONMENT}/pyfunc.json")
        settings["MLSERVER_PYFUNC_ENVIRONMENT"] = ENVIRONMENT
    return [
        "# What changes least comes first: a new source makes new layers only from its own on.",
        "FROM base",
        f"ENV PATH={SERVER}/bin:$PATH",
        *_env({k: v for k, v in settings.items() if k not in recipe.env}, "settings"),
        "# Group 0, for platforms that choose the user id themselves.",
        "USER 1000:0",
        "WORKDIR /tmp",
        "EXPOSE 8080 8081 8082",
        "HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \\\n"
        f"    CMD {json.dumps(['python', '-c', HEALTHCHECK])}",
        "ENTRYPOINT []",
        f"CMD {json.dumps(['sh', '-c', _COMMAND])}",
        *lines,
        f"COPY source {FUNCTION}/source",
        f"COPY function {FUNCTION}",
        *_labels(recipe.labels),
    ]


_COMMAND = 'exec mlserver start "$MLSERVER_MODELS_DIR"'


def _env(variables: Mapping[str, str], where: str) -> Iterator[str]:
    for name in variables:
        if not is_variable(name):
            raise BuildError(f'{where}: expected the name of a variable, got "{name}"')
    pairs = [f"{name}={quoted(value, f'{where}.{name}')}" for name, value in variables.items()]
    if pairs:
        yield "ENV " + " \\\n    ".join(pairs)


def _labels(labels: Mapping[str, str]) -> Iterator[str]:
    pairs = [f"{name}={quoted(value, name)}" for name, value in labels.items()]
    if pairs:
        yield "LABEL " + " \\\n    ".join(pairs)


def _arguments(recipe: Recipe) -> Iterator[str]:
    yield from (f"ARG {name}" for name in recipe.arguments)
    # Build arguments rather than ENV: they are gone when the stage is.
    files = {}
    if CA_SECRET in recipe.secrets:
        files = dict.fromkeys(_CA_VARIABLES, CA_SECRET) | {"APT_CONFIG": APT_SECRET}
    files |= {name: secret for secret, name in _KNOWN_SECRETS.items() if secret in recipe.secrets}
    if files:
        pairs = [f"{name}={_SECRETS}/{secret}" for name, secret in files.items()]
        yield "ARG " + " \\\n    ".join(pairs)


def _instruction(line: str, recipe: Recipe) -> str:
    """A command of the definition's. It is shell by definition, and must stay one command."""
    mounts = "".join(f"{mount} " for mount in _secret_mounts(recipe))
    if "\n" in line or "<<" in line or line.endswith("\\"):
        return f"RUN {mounts}{json.dumps(['/bin/sh', '-ec', line])}"
    return f"RUN {mounts}{line}"


def _run(recipe: Recipe, commands: Sequence[str]) -> str:
    mounts = list(_secret_mounts(recipe))
    if recipe.mounts:
        mounts.append("--mount=type=cache,target=/root/.cache/uv")
    return " \\\n    ".join(
        [
            "RUN " + " \\\n    ".join([*mounts, commands[0]]),
            *(f"&& {command}" for command in commands[1:]),
        ]
    )


def _secret_mounts(recipe: Recipe) -> Iterator[str]:
    for secret in recipe.secrets:
        yield f"--mount=type=secret,id={secret},target={_SECRETS}/{secret}"


def _install(python: str, what: str) -> str:
    return f"uv pip install --quiet --python {python} {what}"
