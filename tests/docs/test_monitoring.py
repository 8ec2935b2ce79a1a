"""Rules and dashboard ask for metrics that the server has, by labels that it gives."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client import REGISTRY

from mlserver_pyfunc.serving import metrics
from tests.places import ROOT

sys.path.append(str(ROOT / "docs"))
monitoring: Any = import_module("monitoring")

FOLDER = ROOT / "examples" / "monitoring"
OF_TARGETS = {"namespace", "pod"}
"""Labels that Prometheus's operator adds."""


def expressions() -> list[str]:
    (group,) = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["spec"]["groups"]
    panels = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    shown = [target["expr"] for panel in panels for target in panel["targets"]]
    return [*(rule["expr"] for rule in group["rules"]), *shown]


@pytest.mark.parametrize("path", monitoring.FILES, ids=lambda path: path.name)
def test_the_files_are_those_that_make_docs_writes(path: Path) -> None:
    made: Callable[[], str] = monitoring.FILES[path]
    assert path.read_text() == made(), "run make docs"


@pytest.mark.parametrize("expression", expressions())
def test_an_expression_asks_for_what_the_server_has(expression: str) -> None:
    promql_parser.parse(expression)
    for name in re.findall(r"\bpyfunc_\w+", expression):
        metric = REGISTRY._names_to_collectors.get(name)
        assert metric is not None, f"{name}: no such metric"
        labels = set(metric._labelnames) | OF_TARGETS | {"le"}  # type: ignore[attr-defined]
        used = re.findall(rf"{name}\{{(.*?)\}}", expression)
        asked = {each for matchers in used for each in re.findall(r"(\w+)[=!]", matchers)}
        assert asked <= labels, f"{name}: has {labels}"


def test_a_broken_expression_is_found() -> None:
    with pytest.raises(ValueError, match=r"\S"):
        promql_parser.parse("sum by (model) (rate(x[5m])")


def test_every_metric_of_load_is_shown() -> None:
    text = (FOLDER / "dashboard.json").read_text()
    for metric in (metrics.REQUESTS, metrics.UTILIZATION, metrics.QUEUE_DEPTH, metrics.WORKERS_UP):
        assert str(metric._name) in text  # type: ignore[attr-defined]
