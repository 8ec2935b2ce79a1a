"""Rules and dashboard ask for metrics that the server has, by labels that it gives."""

from __future__ import annotations

import json
import re
import subprocess
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


GOOD = {
    "pyfunc_workers_up{POD}": "2x30",
    "pyfunc_requests_in_flight{POD}": "4x30",
    "pyfunc_utilization{POD}": "0.9x30",
    'pyfunc_worker_restarts_total{POD,reason="exit"}': "1x30",
    'pyfunc_worker_restarts_total{POD,reason="max_requests"}': "0+20x30",
    'pyfunc_request_duration_seconds_count{POD,status="200"}': "0+600x30",
    'pyfunc_request_duration_seconds_count{POD,status="500"}': "0+6x30",
    'pyfunc_request_duration_seconds_count{POD,status="503"}': "0x30",
    'pyfunc_contract_warnings_total{POD,kind="output"}': "3x30",
}
BAD = {
    "PyFuncNoWorker": {"pyfunc_workers_up{POD}": "2x4 0x26"},
    "PyFuncWorkersEnd": {'pyfunc_worker_restarts_total{POD,reason="exit"}': "0+3x30"},
    "PyFuncFull": {"pyfunc_utilization{POD}": "1.5x30"},
    "PyFuncRefuses": {
        'pyfunc_request_duration_seconds_count{POD,status="503"}': "0+1x30",
    },
    "PyFuncFails": {
        'pyfunc_request_duration_seconds_count{POD,status="500"}': "0+60x30",
    },
    "PyFuncBreaksContract": {'pyfunc_contract_warnings_total{POD,kind="output"}': "0+1x30"},
}
_LABELS = 'namespace="a",model="m",version="1",pod="m-1"'


@pytest.mark.needs("prometheus")
@pytest.mark.parametrize("alert", [*BAD, None])
def test_an_alert_fires_in_its_own_case_alone(alert: str | None, tmp_path: Path) -> None:
    series = {**GOOD, **(BAD[alert] if alert else {})}
    document = yaml.safe_load((FOLDER / "alerts.yaml").read_text())
    rules = document["spec"]["groups"][0]["rules"]
    assert {rule["alert"] for rule in rules} == {*BAD}
    expected = [
        {
            "eval_time": "29m",
            "alertname": rule["alert"],
            "exp_alerts": [
                {
                    "exp_labels": {
                        "namespace": "a",
                        "model": "m",
                        "version": "1",
                        **rule["labels"],
                    },
                    "exp_annotations": {
                        "summary": rule["annotations"]["summary"].replace(
                            "{{ $labels.model }}", "m"
                        )
                    },
                }
            ]
            if rule["alert"] == alert
            else [],
        }
        for rule in rules
    ]
    given = [
        {"series": name.replace("POD", _LABELS), "values": values}
        for name, values in series.items()
    ]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(document["spec"]))
    case = {"interval": "1m", "input_series": given, "alert_rule_test": expected}
    tests = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [case]}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(tests))
    for command in (["check", "rules", "rules.yaml"], ["test", "rules", "tests.yaml"]):
        done = subprocess.run(
            ["promtool", *command], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
