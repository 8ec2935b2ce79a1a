"""A real Prometheus that scrapes pods, as its operator would have it do."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from contextlib import suppress
from pathlib import Path

from mlserver_pyfunc.deployment.server_settings import METRICS_PATH, Ports, free_ports

from .processes import wait_until_up

_CONFIG = """
global: {{scrape_interval: {milliseconds}ms, scrape_timeout: {milliseconds}ms}}
scrape_configs:
  - job_name: pods
    metrics_path: {path}
    file_sd_configs: [{{files: [{targets}], refresh_interval: 1s}}]
"""


class Prometheus:
    """Asks pods for their metrics.

    Attributes:
        url: Where it answers queries.
    """

    def __init__(self, seconds: float, folder: Path) -> None:
        program = shutil.which("prometheus")
        if program is None:
            raise SystemExit("prometheus is needed: apt-get install prometheus")
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self._targets = folder / "targets.json"
        self._pods: dict[str, Ports] = {}
        self._write()
        config = folder / "prometheus.yml"
        text = _CONFIG.format(
            milliseconds=round(seconds * 1000), path=METRICS_PATH, targets=self._targets
        )
        config.write_text(text)
        self._log = folder / "prometheus.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    program,
                    f"--config.file={config}",
                    f"--storage.tsdb.path={folder / 'tsdb'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> Prometheus:
        wait_until_up(self._process, self._is_ready, self._log)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def _is_ready(self) -> bool:
        with suppress(OSError), urllib.request.urlopen(f"{self.url}/-/ready"):
            return True
        return False

    def add(self, name: str, ports: Ports) -> None:
        """Scrapes a pod too."""
        self._pods[name] = ports
        self._write()

    def remove(self, name: str) -> None:
        """Scrapes a pod no longer."""
        del self._pods[name]
        self._write()

    def ask(self, query: str) -> dict[str, float]:
        """Returns the values of a query by pod. The pod is empty if the query joins them."""
        encoded = urllib.parse.urlencode({"query": query})
        with urllib.request.urlopen(f"{self.url}/api/v1/query?{encoded}") as answer:
            found = json.load(answer)["data"]["result"]
        return {each["metric"].get("pod", ""): float(each["value"][1]) for each in found}

    def _write(self) -> None:
        targets = [
            {"targets": [f"127.0.0.1:{ports.metrics}"], "labels": {"pod": name}}
            for name, ports in self._pods.items()
        ]
        new = self._targets.with_suffix(".new")
        new.write_text(json.dumps(targets))
        new.rename(self._targets)
