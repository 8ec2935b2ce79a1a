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
from tests.places import IRIS, ROOT

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
]


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    require("Chromium")
    binary, driver = find("chromium", "google-chrome"), find("chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(driver))
    driver.set_page_load_timeout(60)
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


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The functions of this folder and the iris example, in one repository."""
    models = tmp_path_factory.mktemp("models")
    for folder in (*(Path(__file__).parent / "functions").iterdir(), IRIS):
        shutil.copytree(folder, models / folder.name)
    with Server(models, env={"MLSERVER_DEBUG": "false"}) as server:
        yield server
