"""Takes the picture of the dashboard: two real servers, real load, and a real Prometheus.

python -m tests.docs.dashboard_picture           into .artifacts/screenshots
python -m tests.docs.dashboard_picture --docs    and that of the documentation, into docs/images

The dashboard is for Grafana, which neither apt nor pip has: Prometheus's own console library draws
its queries. Needs `apt-get install prometheus chromium chromium-driver`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import shutil
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import yaml
from PIL import Image

from mlserver_pyfunc.deployment.server_settings import free_ports
from mlserver_pyfunc.testing import Server
from tests.client.playground.conftest import ARTIFACTS, chromium
from tests.places import DOCS, EXAMPLES

MONITORING = EXAMPLES / "monitoring"
STATIC = "/usr/share/prometheus/web/static"
THREADS = 60
MODELS = {
    # A model that takes rows together, on workers of its own.
    "species": {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}],
        "serving": {
            "isolation": "process",
            "workers": 2,
            "max_queue": 24,
            "batch": {"max_size": 8, "max_delay_ms": 5},
        },
    },
    # A client of something slow, whose answers are not always what it promises.
    "prices": {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1]}],
        "serving": {"concurrency": 4, "max_queue": 24},
        "contract": {"responses": "warn"},
    },
}
CODE = """\
import os
import time


def predict(x):
    if x[0, 0] < -1:
        os._exit(1)
    time.sleep(0.05 + 0.005 * len(x))
    return x[:, 0] if x[0, 1] < 0.9 else x[:2, 0].repeat(2)
"""
PAGE = """\
<!doctype html><meta charset="utf-8"><title>dashboard</title>
<link rel="stylesheet" href="/classic/static/css/prom_console.css">
<link rel="stylesheet" href="/classic/static/rickshaw/rickshaw.min.css">
<style>
  body {{ font: 13px sans-serif; margin: 12px; background: #fff }}
  #all {{ display: grid; grid-template-columns: repeat(3, 1fr); gap: 12px }}
  .panel {{ border: 1px solid #ccc; padding: 8px 10px; overflow: hidden }}
  h2 {{ font-size: 14px; margin: 0 0 6px }}
  .prom_graph_link, .prom_graph_xtitle {{ display: none }}
  .rickshaw_legend {{ background: none; color: #333; padding: 0; font-size: 12px }}
</style>
<div id="all"></div>
<script>var PATH_PREFIX = "";</script>
<script src="/classic/static/jquery/jquery.min.js"></script>
<script src="/classic/static/d3/d3.min.js"></script>
<script src="/classic/static/rickshaw/rickshaw.min.js"></script>
<script src="/classic/static/js/prom_console.js"></script>
<script>
  for (const panel of {panels}) {{
    const box = document.createElement("div"), title = document.createElement("h2");
    box.className = "panel"; title.textContent = panel.title;
    box.append(title); document.getElementById("all").append(box);
    new PromConsole.Graph({{node: box, expr: panel.expr, name: panel.name, min: 0, height: 150,
      width: 420, xTitle: "", yTitle: panel.unit, duration: {seconds}, endTime: {end},
      yAxisFormatter: PromConsole.NumberFormatter.humanizeNoSmallPrefix}});
  }}
</script>
"""


def main() -> None:
    """Serves, calls, scrapes, and takes the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--docs", action="store_true", help="write docs/images, too")
    parser.add_argument("--seconds", type=float, default=420, help="of load; default: 420")
    arguments = parser.parse_args()
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        work = Path(name)
        ports = free_ports(3)
        env = {"MLSERVER_DEBUG": "false", "MLSERVER_PARALLEL_WORKERS": "0"}
        servers = [
            stack.enter_context(
                Server(models(work / f"pod-{port}"), {**env, "MLSERVER_METRICS_PORT": str(port)})
            )
            for port in ports[:2]
        ]
        url = stack.enter_context(prometheus(work, ports[2], ports[:2]))
        load([server.url for server in servers], arguments.seconds)
        print_rules(url)
        place = ARTIFACTS / "screenshots"
        place.mkdir(parents=True, exist_ok=True)
        draw(url, work, arguments.seconds, place / "dashboard.png")
    if arguments.docs:
        shutil.copyfile(place / "dashboard.png", DOCS / "images" / "dashboard.png")


def models(folder: Path) -> Path:
    for name, definition in MODELS.items():
        place = folder / name
        place.mkdir(parents=True)
        source = {"source": "model.py", "handler": "predict"}
        content = {"model_name": name, "source": source, **definition}
        (place / "function.yaml").write_text(yaml.safe_dump(content))
        (place / "model.py").write_text(CODE)
        settings = {"implementation": "mlserver_pyfunc.PyFuncRuntime"}
        (place / "model-settings.json").write_text(json.dumps(settings))
    return folder


@contextlib.contextmanager
def prometheus(work: Path, port: int, targets: list[int]) -> Iterator[str]:
    """Scrapes as by the PodMonitor, which adds the labels of the pods, and knows the alerts."""
    endpoint = yaml.safe_load((MONITORING / "pod-monitor.yaml").read_text())["spec"]
    rules = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["spec"]
    (work / "rules.yaml").write_text(yaml.safe_dump(rules))
    job = {
        "job_name": "pods",
        "metrics_path": endpoint["podMetricsEndpoints"][0]["path"],
        "static_configs": [
            {"targets": [f"127.0.0.1:{target}"], "labels": {"namespace": "shop", "pod": f"pod-{n}"}}
            for n, target in enumerate(targets, 1)
        ],
    }
    seconds = {"scrape_interval": "3s", "evaluation_interval": "3s"}
    settings = {"global": seconds, "rule_files": ["rules.yaml"], "scrape_configs": [job]}
    (work / "prometheus.yml").write_text(yaml.safe_dump(settings))
    (work / "consoles").mkdir()
    command = ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--web.console.templates=consoles"]
    with (work / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=work, stdout=log, stderr=log)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)


def load(urls: list[str], seconds: float) -> None:
    """Calls both models with a number of clients that rises, falls and has a peak."""
    start = time.monotonic()

    def clients(share: float) -> float:
        return THREADS if 0.62 < share < 0.72 else 8 + 7 * math.sin(9 * share)

    def call(number: int) -> None:
        with httpx.Client(timeout=30) as client:
            turn = number
            while (share := (time.monotonic() - start) / seconds) < 1:
                if number >= clients(share):
                    time.sleep(0.5)
                    continue
                turn += 1
                url = f"{urls[turn % 2]}/v2/models/{(*MODELS,)[turn // 2 % 2]}/infer"
                first = -2.0 if 0.15 < share < 0.55 and turn % 60 == 0 and "species" in url else 0.5
                row = [first, (turn % 10) / 10, 0.0, 0.0]
                tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": row}
                with contextlib.suppress(httpx.HTTPError):
                    if client.post(url, json={"inputs": [tensor]}).status_code == 503:
                        time.sleep(0.2)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def print_rules(url: str) -> None:
    """Prints the state of each alert, and which ones Prometheus saw firing."""
    for name in ("rules", "targets"):
        with urllib.request.urlopen(f"{url}/api/v1/{name}") as answer:
            data = json.load(answer)["data"]
        for group in data.get("groups", []):
            for rule in group["rules"]:
                print(rule["name"], rule["health"], rule["state"])
        for target in data.get("activeTargets", []):
            print(target["labels"]["pod"], target["health"], target["lastError"])


def draw(url: str, work: Path, seconds: float, path: Path) -> None:
    """Draws the panels of the dashboard as it arranges them."""
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    panels = [panel_of(panel) for panel in dashboard["panels"]]
    end = time.time()
    page = PAGE.format(panels=json.dumps(panels), seconds=int(seconds), end=int(end))
    (work / "consoles" / "dashboard.html").write_text(page)
    browser = chromium(work / "profile")
    try:
        browser.set_window_size(1500, 880)
        browser.get(f"{url}/consoles/dashboard.html")
        deadline = time.monotonic() + 60
        while (
            browser.execute_script("return document.querySelectorAll('svg path.path').length") < 9
        ):
            assert time.monotonic() < deadline, "the panels are empty"
            time.sleep(0.5)
        time.sleep(2)
        browser.save_screenshot(str(path))
    finally:
        browser.quit()
    Image.open(path).convert("RGB").quantize(64).save(path, optimize=True)
    print(path, path.stat().st_size)


def panel_of(panel: dict[str, Any]) -> dict[str, Any]:
    """A panel as the console library wants it, with all values of the dashboard's variables."""
    expressions = [each["expr"] for each in panel["targets"]]
    return {
        "title": panel["title"],
        "unit": panel["fieldConfig"]["defaults"]["unit"],
        "expr": [e.replace("$namespace", ".*").replace("$model", ".*") for e in expressions],
        "name": [
            each["legendFormat"].replace("{{", "[[ ").replace("}}", " ]]")
            for each in panel["targets"]
        ],
    }


if __name__ == "__main__":
    main()
