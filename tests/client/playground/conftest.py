"""A real headless Chromium, and the models it is shown."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from mlserver_pyfunc.testing import Server
from tests.needs import find, require
from tests.places import EXAMPLES, IRIS, ROOT

HERE = Path(__file__).parent
SHOWN = [
    *(HERE / "forms").iterdir(),
    *(HERE / "functions").iterdir(),
    *(EXAMPLES / name for name in ("iris", "image", "text-stream", "many/words", "many/celsius")),
    *(EXAMPLES / name for name in ("tabular", "picture", "batching")),
]
"""Functions that are shown and worked through."""

ARTIFACTS = ROOT / ".artifacts"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    # A camera that shows a pattern and a microphone that beeps, which every page may use.
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]


def chromium(profile):
    """Starts a headless Chromium that writes into a folder."""
    options = webdriver.ChromeOptions()
    options.binary_location = find("chromium", "google-chrome")
    for flag in [*FLAGS, f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(find("chromedriver")))
    driver.set_page_load_timeout(60)
    return driver


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    require("Chromium")
    driver = chromium(tmp_path_factory.mktemp("profile"))
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def axe():
    """axe-core's script, from npm."""
    script = Path(os.environ.get("AXE_CORE") or ARTIFACTS / "npm/node_modules/axe-core/axe.min.js")
    if not script.is_file():
        require("axe-core")
        command = ["npm", "install", "--silent", "--prefix", ARTIFACTS / "npm", "axe-core@4.11.0"]
        subprocess.run(command, check=True)
    return script.read_text()


def gather(folder, *sources):
    """Copies functions into one repository."""
    for source in sources:
        shutil.copytree(source, folder / source.name)
        settings = folder / source.name / "model-settings.json"
        if not settings.exists():
            settings.write_text('{"implementation": "mlserver_pyfunc.PyFuncRuntime"}')
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The functions of this folder and the iris example, in one repository."""
    models = gather(tmp_path_factory.mktemp("models"), *(HERE / "functions").iterdir(), IRIS)
    with Server(models, env={"MLSERVER_DEBUG": "false"}) as server:
        yield server


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
    """Functions for the controls of forms, and examples."""
    models = gather(tmp_path_factory.mktemp("forms"), *SHOWN)
    with Server(models, env={"MLSERVER_DEBUG": "false"}) as server:
        yield server
