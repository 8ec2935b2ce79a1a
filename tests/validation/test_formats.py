"""How `validate` shows findings, and mends what leaves no doubt."""

import json
import re
import subprocess
import sys

import pytest
import yaml

from mlserver_pyfunc.validation import RULES, validate
from mlserver_pyfunc.validation.findings import EXPLANATIONS
from tests.cli.test_cli import call, run
from tests.places import ROOT

from .broken import FILE, MODEL

FAULTY = """\
requirement: [numpy]
python_version: 3.10
source: {source: model.py, handler: f}
inputs: [{name: x, datatype: "float32", shape: [-1]}]
outputs: [{name: y, datatype: FP32, shape: [-1]}]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "function.yaml").write_text(FAULTY)
    (tmp_path / "model.py").write_text(MODEL)
    return tmp_path


def test_text_shows_the_place_the_line_the_fix_and_a_summary(folder):
    out, _ = run("validate", code=1, cwd=folder)
    assert out.splitlines() == [
        'function.yaml:1:1: error D101: requirement: unknown key, did you mean "requirements"?',
        "1 | requirement: [numpy]",
        "  | ^^^^^^^^^^^ requirements",
        "function.yaml:2:17: error D103: python_version: got the number 3.1: write it in quotes, "
        '"3.10"',
        "2 | python_version: 3.10",
        '  |                 ^^^^ "3.10"',
        'function.yaml:4:31: error D103: inputs.0.datatype: unknown datatype "float32", did you '
        'mean "FP32"?',
        '4 | inputs: [{name: x, datatype: "float32", shape: [-1]}]',
        "  |                               ^^^^^^^ FP32",
        "errors: 3, --fix mends 3",
    ]


def test_a_long_line_is_shown_around_the_fault(folder):
    words = "word " * 40
    line = f'outputs: [{{name: y, description: "{words}", datatype: float, shape: [1]}}]\n'
    (folder / "function.yaml").write_text(FILE.partition("outputs")[0] + line)
    excerpt, mark = call("validate", code=1)[0].splitlines()[1:3]
    assert len(excerpt) < 110
    assert excerpt[mark.index("^") : mark.rindex("^") + 1] == "float"


def test_fix_mends_what_leaves_no_doubt(folder):
    settings = folder / "model-settings.json"
    settings.write_bytes(b'{"implementation":\t"mlserver_pyfunc.Runtime"}\r\n')
    with (folder / "function.yaml").open("a") as file:
        file.write("deployment: {replica: 2}\n")
    out, err = call("validate", folder, "--fix")
    assert err == "mended: 5\n"
    assert "nothing wrong was found" in out
    assert (folder / "function.yaml").read_text() == (
        FAULTY.replace("requirement:", "requirements:")
        .replace("3.10", '"3.10"')
        .replace("float32", "FP32")
        + "deployment: {replicas: 2}\n"
    )
    fixed = b'{"implementation":\t"mlserver_pyfunc.PyFuncRuntime"}\r\n'
    assert settings.read_bytes() == fixed


@pytest.mark.parametrize(
    "text",
    [
        FILE + "requirement: [numpy]\nrequirements: [numpy]\n",
        FILE + "serving: {threads: 2}\n",
        "inputs: '[{name: x, datatype: float32, shape: [1]}]'\n" + FILE.splitlines()[0],
    ],
    ids=["the key is there already", "no key is near", "a list as text"],
)
def test_fix_leaves_alone_what_has_another_meaning(folder, text):
    (folder / "function.yaml").write_text(text)
    call("validate", folder, "--fix", code=1)
    assert (folder / "function.yaml").read_text() == text


def test_a_definition_inside_a_string_is_not_mended(tmp_path):
    inline = {"requirement": [], "source": {"code": "def f(): return 1", "handler": "f"}}
    settings = {
        "implementation": "mlserver_pyfunc.PyFuncRuntime",
        "parameters": {"extra": {"function": json.dumps(inline)}},
    }
    (tmp_path / "model-settings.json").write_text(json.dumps(settings))
    found = [finding for finding in validate(tmp_path) if finding.rule == "D101"]
    assert [(finding.fix, finding.column) for finding in found] == [(None, 0)]


def test_github_annotates_lines(folder):
    out, _ = call("validate", "--format", "github", code=1)
    first = "::error file=function.yaml,line=1,col=1,title=D101::requirement: unknown key"
    assert out.startswith(first)
    assert len(out.splitlines()) == 3


def test_several_folders_can_be_named(folder):
    other = folder / "other"
    other.mkdir()
    (other / "function.yaml").write_text(FILE)
    (other / "model.py").write_text(MODEL)
    out, _ = call("validate", other, folder / "function.yaml", code=1)
    assert out.endswith("errors: 3, --fix mends 3\n")
    assert call("validate", "other", other / "function.yaml")[0].endswith(
        "nothing wrong was found\n"
    )


def test_the_hook_for_pre_commit_calls_the_command(folder):
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    program, *arguments = hook["entry"].split()
    assert program == "mlserver-pyfunc"
    assert call(*arguments, code=1)[0].endswith("--fix mends 3\n")
    # No names of files: the command takes folders.
    assert hook["pass_filenames"] is False


@pytest.mark.parametrize("path", ["nowhere", "nowhere/function.yaml"])
def test_what_does_not_exist_is_an_error(folder, path):
    out, _ = call("validate", path, code=1)
    assert f"{path}:1:1: error D001: {path}: no such" in out


def test_each_rule_is_explained_with_a_bad_and_a_good_example():
    assert set(EXPLANATIONS) == set(RULES)
    for rule, text in EXPLANATIONS.items():
        assert re.search(r"Bad:\n\n```.*?```\n\nGood:\n\n```.*?```", text, re.S), rule
    out, _ = call("validate", "--explain", "c403")
    assert out.startswith("C403 error: handler, init and unload function are in their module")
    _, err = call("validate", "--explain", "C999", code=2)
    assert 'no rule "C999", --rules lists them' in err


def test_a_plain_function_is_checked_without_numpy(tmp_path):
    call("init", tmp_path / "plain")
    program = (
        "import sys; from pathlib import Path; from mlserver_pyfunc.validation import validate;"
        f"assert validate(Path({str(tmp_path / 'plain')!r})) == [];"
        "print({'numpy', 'packaging', 'filelock', 'jinja2', 'rich'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "set()\n"
