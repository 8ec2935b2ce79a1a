"""`validate` finds what is wrong, where it is, and nothing else; it runs no user code."""

import json
import zipfile
from pathlib import Path

import pytest
import yaml

from mlserver_pyfunc import definition
from mlserver_pyfunc.definition.scaffold import described
from mlserver_pyfunc.serving.local import load
from mlserver_pyfunc.validation import RULES, validate
from tests.handler.forty import FORTY
from tests.places import EXAMPLES

from .broken import CASES, FILE, INLINE, TAIL, Broken, code_case

SOUND = [
    code_case("plain", "def f(x):\n    return x\n"),
    code_case("async with defaults", "async def f(x, scale=1):\n    return x\n"),
    code_case("any name for one input", "def f(whatever):\n    return whatever\n"),
    code_case("decorated", "import functools\n@functools.cache\ndef f(a, b, c):\n    return a\n"),
    code_case("imported", "from operator import neg as f\n"),
    code_case("starred", "from operator import *\n"),
    code_case("under try", "try:\n    def f(x): return x\nexcept ImportError:\n    f = None\n"),
    code_case("assigned from a call", "f = make()\n"),
    code_case("text longer than a path", f"T = load('{'x' * 300}')\ndef f(x): return x\n"),
    code_case("request and context", "def f(context, request):\n    return request\n"),
    code_case("keywords", "def f(**tensors):\n    return tensors['x']\n"),
    code_case("callable class", "class f:\n    def __call__(self, x):\n        return x\n"),
    code_case(
        "static method",
        "class M:\n    @staticmethod\n    def f(x):\n        return x\n",
        definition=FILE.replace("handler: f", "handler: M.f"),
    ),
    code_case(
        "inherited method",
        "class M(Base):\n    pass\n",
        definition=FILE.replace("handler: f", "handler: M.f"),
    ),
    code_case(
        "init with an annotated context",
        "def f(x):\n    return x\n\ndef setup(c: 'Context'):\n    pass\n",
        definition=FILE.replace("handler: f", "handler: f, init_function: setup"),
    ),
    code_case(
        "an import that may fail",
        "try:\n    import nosuchpackage\nexcept ImportError:\n    pass\ndef f(x): return x\n",
    ),
    code_case(
        "an import from a requirement",
        "import nosuchpackage\ndef f(x): return x\n",
        definition=FILE + "requirements: [no-such-package]\n",
    ),
    Broken(
        "an import from beside",
        FILE,
        [],
        {"model.py": "import near.by\nfrom . import other\ndef f(x): return x\n", "near.py": ""},
    ),
    Broken("known keys without a value", FILE + "requirements:\nserving:\n  batch:\n", []),
    Broken("keys of one's own", FILE + "init_parameters: {a: }\nbuild: {env: {b: }}\n", []),
    Broken("inline", INLINE + TAIL, []),
    Broken(
        "requirements that agree",
        FILE + "requirements: ['numpy>=1.24', 'numpy<3', 'numpy!=2.0.0', 'torch==2.*']\n",
        [],
    ),
    Broken(
        "requirements by platform",
        FILE + "requirements: ['a==1; python_version<\"3\"', 'a==2; python_version>=\"3\"']\n",
        [],
    ),
    Broken(
        "digitalhub spec",
        "kind: openinference\nspec:\n  source: {source: model.py, handler: f}\n"
        "  inputs: [{name: x, datatype: FP32, shape: [-1]}]\n"
        "  outputs: [{name: y, shape: [-1]}]\n",
        [],
    ),
]


@pytest.mark.parametrize(
    "code",
    [
        "def f(x: {}) -> int: ...",
        "def f(x: int) -> {}: ...",
        "def f(x: int = {}) -> int: ...",
        "from typing import Optional\ndef f(x: Optional['{}']) -> int: ...",
        "from dataclasses import dataclass\n@dataclass\nclass A:\n    a: '{}'\n"
        "def f(x: A) -> int: ...",
        "from dataclasses import dataclass\n@dataclass\nclass A:\n    a: int = {}\n"
        "def f(x: A) -> int: ...",
        "import dataclasses\nclass A({}): pass\ndef f(x: A) -> int: ...",
        "T = {}\ndef f(x: T) -> int: ...",
        "class B:\n    class A:\n        x: int = {}\ndef f(x: B.A) -> int: ...",
        "class B:\n    class A({}): ...\ndef f(x: B.A) -> int: ...",
    ],
)
def test_no_annotation_default_or_class_is_run(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = 'np.ones(1).tofile("EXECUTED")'
    (tmp_path / "model.py").write_text("import numpy as np\n" + code.replace("{}", run))
    (finding, *_) = validate(tmp_path / "model.py:f") or [None]
    assert finding is None or finding.rule in ("C405", "C409")
    assert not list(tmp_path.rglob("EXECUTED")), "user code ran"


def test_a_function_needs_no_definition(tmp_path):
    (tmp_path / "model.py").write_text("def f(x: int) -> int:\n    return x\ndef g(x): ...\n")
    assert validate(tmp_path / "model.py:f") == []
    (finding,) = validate(tmp_path / "model.py:g")
    assert (finding.rule, finding.line) == ("C405", 3)
    (finding,) = validate(tmp_path / "model.py:h")
    assert finding.rule == "C403"
    settings = {"parameters": {"extra": {"function": "model.py:f"}}}
    settings["implementation"] = "mlserver_pyfunc.PyFuncRuntime"
    (tmp_path / "model-settings.json").write_text(json.dumps(settings))
    assert validate(tmp_path) == []


def write(case: Broken, folder: Path) -> None:
    for name, text in case.texts().items():
        (folder / name).write_text(text)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_finds_each_fault_at_its_line(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(case, tmp_path)
    found = [
        (finding.rule, str(finding.file.relative_to(tmp_path)), finding.line)
        for finding in validate(tmp_path)
    ]
    assert found == case.found, [finding.message for finding in validate(tmp_path)]
    assert not list(tmp_path.rglob("EXECUTED")), "user code ran"


@pytest.mark.parametrize("case", SOUND, ids=lambda case: case.name)
def test_finds_nothing_in_what_is_sound(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(case, tmp_path)
    assert validate(tmp_path) == []
    assert not list(tmp_path.rglob("EXECUTED")), "user code ran"


@pytest.mark.parametrize("case", FORTY, ids=lambda case: case.name)
def test_the_syntax_tree_tells_the_same_contract_as_the_loaded_function(case, tmp_path):
    (tmp_path / "model.py").write_text(case.code)
    found = validate(tmp_path / f"model.py:{case.handler}")
    assert [finding.rule for finding in found] == (["C405"] if case.reason else [])
    if case.reason:
        return
    files = described("m", tmp_path, tmp_path / "model.py", case.handler)
    written = definition.parse(yaml.safe_load(files["function.yaml"]))
    loaded = load(f"{tmp_path / 'model.py'}:{case.handler}")
    with loaded:
        assert (written.inputs, written.outputs) == (
            loaded.definition.inputs, loaded.definition.outputs,
        )  # fmt: skip
    assert "guess" not in files["function.yaml"]


def test_the_corpus_is_of_forty_and_more_and_knows_every_static_rule():
    assert len(CASES) >= 40
    met = {rule for case in CASES for rule, _, _ in case.found}
    needs_more_than_files = {"S302", "S303"}
    assert met == set(RULES) - needs_more_than_files


def test_the_examples_have_no_findings():
    for file in EXAMPLES.rglob("function.yaml"):
        assert validate(file.parent) == [], file


def test_a_remote_source_is_said_not_to_be_checked(tmp_path):
    text = FILE.replace("model.py", "git+https://example.invalid/a/b#main")
    (tmp_path / "function.yaml").write_text(text)
    (finding,) = validate(tmp_path)
    assert (finding.rule, finding.severity) == ("S302", "note")


def test_an_inline_definition_is_found_in_its_settings_by_line(tmp_path):
    (tmp_path / "model-settings.json").write_text(
        '{\n "implementation": "mlserver_pyfunc.PyFuncRuntime",\n "parameters": {"extra": {\n'
        '  "function": {\n   "source": {"code": "def f(): return 1", "handler": "g"},\n'
        '   "outputs": [{"name": "y", "datatype": "INT8", "shape": [1]}]\n  }}}}'
    )
    (finding,) = validate(tmp_path)
    assert (finding.rule, finding.line) == ("C403", 5)


def test_a_definition_file_can_be_named_itself(tmp_path):
    (tmp_path / "other.yaml").write_text(FILE.replace("handler: f", "handler: g"))
    (tmp_path / "model.py").write_text("def f(x): return x\n")
    (finding,) = validate(tmp_path / "other.yaml")
    assert (finding.rule, finding.file.name) == ("C403", "other.yaml")


def test_code_in_an_archive_is_checked_too(tmp_path):
    with zipfile.ZipFile(tmp_path / "code.zip", "w") as archive:
        archive.writestr("model.py", "def g(x): return x\n")
    text = FILE.replace("model.py, handler: f", "code.zip, handler: 'model:f'")
    (tmp_path / "function.yaml").write_text(text)
    (finding,) = validate(tmp_path)
    assert finding.rule == "C403"
