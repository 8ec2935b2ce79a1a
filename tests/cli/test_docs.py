"""What the documents show is what happens."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.console import session
from tests.places import DOCS

sys.path.insert(0, str(DOCS))
from reference import reference


def test_the_reference_is_the_commands_own():
    written = (DOCS / "cli.md").read_text()
    assert written == reference(), "out of date: run `make docs` and commit the file"


@pytest.mark.server
@pytest.mark.needs("curl")
def test_the_quick_start_replays(tmp_path):
    with session(tmp_path) as terminal:
        terminal.replay((DOCS / "quickstart.md").read_text())
        assert terminal.server is not None
    for file in ("hello/function.lock", "openapi.json", "hello_client.py"):
        assert (tmp_path / file).is_file()


@pytest.mark.server
def test_the_examples_of_testing_md_pass(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "testing.md").read_text(), re.S)
    # A setting of the whole module stands first, as in any other.
    (tmp_path / "test_hello.py").write_text("import pytest\n" + "\n".join(blocks))
    program = Path(sys.executable).with_name("mlserver-pyfunc")
    subprocess.run([program, "init", "hello"], cwd=tmp_path, check=True, capture_output=True)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--rootdir", ".", "-c", "/dev/null"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout
