"""Makes examples/monitoring from the names of the metrics: rules, a dashboard, a PodMonitor."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from mlserver_pyfunc.deployment.server_settings import METRICS_PATH
from mlserver_pyfunc.serving import metrics

FOLDER = Path(__file__).resolve().parent.parent / "examples" / "monitoring"
_HEADER = "# Written by `make docs` from docs/monitoring.py.\n"
_BY = "namespace, model, version"


def _name(metric: Any) -> str:
    return str(metric._name)


_REQUESTS = _name(metrics.REQUESTS)
_RESTARTS = f"{_name(metrics.WORKER_EXITS)}_total"
_WARNINGS = f"{_name(metrics.CONTRACT_WARNINGS)}_total"


def _rate(series: str, matchers: str = "", *, by: str = _BY) -> str:
    return f"sum by ({by}) (rate({series}{{{matchers}}}[5m]))"


def _quantile(metric: Any, quantile: float, matchers: str = "") -> str:
    return f"histogram_quantile({quantile}, {_rate(f'{_name(metric)}_bucket', matchers, by='le')})"


# Alert, expression, for how long, severity, and what it means.
_ALERTS = (
    (
        "NoWorker",
        f"max by ({_BY}) ({_name(metrics.WORKERS_UP)}) == 0"
        f" and sum by ({_BY}) ({_name(metrics.IN_FLIGHT)}) > 0",
        "1m",
        "critical",
        "No worker takes calls, and requests wait: the log says why the workers end.",
    ),
    (
        "WorkersEnd",
        _rate(_RESTARTS, 'reason!="max_requests"') + " > 0.02",
        "5m",
        "warning",
        "Workers are replaced more than once a minute: the label reason and the log say why.",
    ),
    (
        "Full",
        f"avg by ({_BY}) ({_name(metrics.UTILIZATION)}) > 1",
        "5m",
        "warning",
        "Requests wait in all pods: add replicas, workers or concurrency.",
    ),
    (
        "Refuses",
        _rate(f"{_REQUESTS}_count", 'status="503"') + " > 0",
        "2m",
        "critical",
        "Requests are refused with 503: the queue is full, or no worker is there.",
    ),
    (
        "Fails",
        _rate(f"{_REQUESTS}_count", 'status=~"5..",status!="503"')
        + f" / {_rate(f'{_REQUESTS}_count')} > 0.05",
        "5m",
        "warning",
        "More than 5 % of the requests fail: the log has the traceback, by the request id.",
    ),
    (
        "BreaksContract",
        _rate(_WARNINGS) + " > 0",
        "15m",
        "info",
        "Requests or answers break the contract, which only warns.",
    ),
)


def alerts() -> str:
    """The rules of Prometheus, in the PrometheusRule of its operator."""
    rules = [
        {
            "alert": f"PyFunc{name}",
            "expr": expression,
            "for": time,
            "labels": {"severity": severity},
            "annotations": {"summary": "{{ $labels.model }}: " + summary},
        }
        for name, expression, time, severity, summary in _ALERTS
    ]
    document = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "mlserver-pyfunc"},
        "spec": {"groups": [{"name": "mlserver-pyfunc", "rules": rules}]},
    }
    return _HEADER + yaml.safe_dump(document, sort_keys=False, width=1000)


def pod_monitor() -> str:
    """Tells Prometheus's operator to scrape all pods that `mlserver-pyfunc manifest` describes."""
    endpoint = {"port": "metrics", "path": METRICS_PATH, "interval": "15s"}
    document = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": {"name": "mlserver-pyfunc"},
        "spec": {
            "selector": {"matchLabels": {"app.kubernetes.io/managed-by": "mlserver-pyfunc"}},
            "podMetricsEndpoints": [endpoint],
        },
    }
    return _HEADER + yaml.safe_dump(document, sort_keys=False)


_OURS = 'namespace=~"$namespace",model=~"$model"'


def _sum(metric: Any) -> str:
    return f"sum by (model) ({_name(metric)}{{{_OURS}}})"


# Title, unit, and the expressions by legend.
_PANELS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("Requests", "reqps", {"{{status}}": _rate(f"{_REQUESTS}_count", _OURS, by="status")}),
    (
        "Duration",
        "s",
        {f"p{q:.0%}".strip("%"): _quantile(metrics.REQUESTS, q, _OURS) for q in (0.5, 0.95, 0.99)},
    ),
    (
        "Utilization by pod",
        "percentunit",
        {"{{pod}}": f"sum by (pod) ({_name(metrics.UTILIZATION)}{{{_OURS}}})"},
    ),
    (
        "Requests in flight",
        "short",
        {
            "in flight, {{model}}": _sum(metrics.IN_FLIGHT),
            "slots, {{model}}": _sum(metrics.SLOTS),
            "wait, {{model}}": _sum(metrics.QUEUE_DEPTH),
        },
    ),
    ("Wait in the queue, p95", "s", {"p95": _quantile(metrics.QUEUE_WAIT, 0.95, _OURS)}),
    ("Workers up", "short", {"{{model}}": _sum(metrics.WORKERS_UP)}),
    ("Replaced workers", "ops", {"{{reason}}": _rate(_RESTARTS, _OURS, by="reason")}),
    ("Rows of a batch, p50", "short", {"p50": _quantile(metrics.BATCH_ROWS, 0.5, _OURS)}),
    ("Breaches of the contract", "ops", {"{{kind}}": _rate(_WARNINGS, _OURS, by="kind")}),
)


def dashboard() -> str:
    """A dashboard of Grafana, which asks for its source of data when it is imported."""
    source = {"type": "prometheus", "uid": "${datasource}"}
    panels = [
        {
            "id": index + 1,
            "type": "timeseries",
            "title": title,
            "datasource": source,
            "gridPos": {"x": index % 3 * 8, "y": index // 3 * 8, "w": 8, "h": 8},
            "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
            "targets": [
                {"refId": chr(65 + n), "expr": expression, "legendFormat": legend}
                for n, (legend, expression) in enumerate(expressions.items())
            ],
        }
        for index, (title, unit, expressions) in enumerate(_PANELS)
    ]
    series = _name(metrics.UTILIZATION)
    variables = [{"name": "datasource", "type": "datasource", "query": "prometheus"}]
    variables += [
        {
            "name": name,
            "type": "query",
            "datasource": source,
            "query": f"label_values({series}, {name})",
            "includeAll": True,
            "multi": True,
            "refresh": 2,
        }
        for name in ("namespace", "model")
    ]
    document = {
        "title": "mlserver-pyfunc",
        "uid": "mlserver-pyfunc",
        "schemaVersion": 39,
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "30s",
        "templating": {"list": variables},
        "panels": panels,
    }
    return json.dumps(document, indent=2) + "\n"


FILES: dict[Path, Callable[[], str]] = {
    FOLDER / "alerts.yaml": alerts,
    FOLDER / "pod-monitor.yaml": pod_monitor,
    FOLDER / "dashboard.json": dashboard,
}
