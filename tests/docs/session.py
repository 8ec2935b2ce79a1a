"""Runs a document as a reader would: writes its files, serves them, types its commands.

Blocks with a title are files of a model, one model for each section. A shell or Python block
that a `json` or `text` block follows must print that; `...` stands for anything.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.needs import require

from .markdown import Block, blocks

SETTINGS = '{"implementation": "mlserver_pyfunc.PyFuncRuntime"}'


@dataclass(frozen=True)
class Step:
    """A command, or a program, and what it prints."""

    block: Block
    expected: Block

    @property
    def name(self) -> str:
        return f"line {self.block.line}, {self.block.section}"


def write_models(document: Path, repository: Path) -> list[str]:
    """Writes each section's files as a model; returns the models' names."""
    names = []
    sections = dict.fromkeys(block.section for block in blocks(document) if block.title)
    for section in sections:
        here = [block for block in blocks(document) if block.section == section]
        files = {block.title: block.text for block in here if block.title}
        if served := re.search(r"mlserver-pyfunc serve (\w+\.py:(\w+))", str(here)):
            settings = {**json.loads(SETTINGS), "name": served[2]}
            settings["parameters"] = {"extra": {"function": served[1]}}
            files["model-settings.json"] = json.dumps(settings)
        name = model_name(files)
        for title, text in {"model-settings.json": SETTINGS, **files}.items():
            path = repository / name / title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        names.append(name)
    return names


def model_name(files: dict[str, str]) -> str:
    if "function.yaml" not in files:
        return str(json.loads(files["model-settings.json"])["name"])
    value = yaml.safe_load(files["function.yaml"])
    return str(value.get("model_name") or value["name"])


def steps(document: Path) -> Iterator[Step]:
    """The blocks to run, with the blocks that say what they print."""
    found = blocks(document)
    for block, following in itertools.pairwise(found):
        runs = block.language in ("sh", "python") and not block.title
        if runs and following.language in ("json", "text") and block.section == following.section:
            yield Step(block, following)


def run(step: Step, http: str, grpc: str, folder: Path) -> str:
    """What a step prints, with the server's ports for the default ones."""
    if "curl" in step.block.text:
        require("curl")
    text = step.block.text.replace("localhost:8080", http).replace("localhost:8081", grpc)
    command = [sys.executable, "-"] if step.block.language == "python" else ["bash", "-eu"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        input=text,
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_printed(expected: Block, printed: str) -> None:
    if expected.language == "json":
        assert_same(json.loads(expected.text), json.loads(printed))
        return
    pattern = ".*".join(map(re.escape, expected.text.split("...")))
    assert re.fullmatch(pattern, printed, re.DOTALL), f"expected\n{expected.text}\ngot\n{printed}"


def assert_same(expected: Any, got: Any) -> None:
    """Compares JSON values; the text `...` stands for anything."""
    if expected == "...":
        return
    if isinstance(expected, dict) and isinstance(got, dict):
        assert list(expected) == list(got)
        for key, value in expected.items():
            assert_same(value, got[key])
        return
    if isinstance(expected, list) and isinstance(got, list):
        assert len(expected) == len(got), f"expected {expected}, got {got}"
        for one, other in zip(expected, got, strict=True):
            assert_same(one, other)
        return
    assert got == expected
