"""The command line, run as a user runs it: in a process of its own."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from click.testing import CliRunner
from PIL import Image

from mlserver_pyfunc import definition
from mlserver_pyfunc.cli import COMMANDS, main
from tests.places import FUNCTIONS, SCHEMA
from tests.waiting import wait_until

PROGRAM = str(Path(sys.executable).with_name("mlserver-pyfunc"))


def run(*args, cwd=None, stdin=None, code=0):
    done = subprocess.run(
        [PROGRAM, *map(str, args)], cwd=cwd, input=stdin, capture_output=True, check=False
    )
    assert done.returncode == code, done.stdout.decode() + done.stderr.decode()
    return done.stdout.decode(), done.stderr.decode()


def call(*args, stdin=None, code=0):
    """As `run`, in this process: quicker where all that matters is what is said."""
    done = CliRunner().invoke(main, [*map(str, args)], input=stdin, prog_name="mlserver-pyfunc")
    assert done.exit_code == code, done.output
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def hello(tmp_path_factory):
    folder = tmp_path_factory.mktemp("start") / "hello"
    run("init", folder)
    return folder


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=str)
def test_every_command_has_help(command):
    out, _ = call(*command, "--help")
    assert "Usage: mlserver-pyfunc" in out


def test_help_is_quick_and_imports_nothing_heavy():
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    # Of the processor, since others may keep it from us.
    assert min(times) < 0.2
    heavy = "import sys, mlserver_pyfunc.cli as c; c.main(['--help'], standalone_mode=False);"
    check = "print({'mlserver','numpy','pydantic','rich','yaml'} & set(sys.modules))"
    out = subprocess.check_output([sys.executable, "-c", heavy + check], text=True)
    assert out.endswith("set()\n")


def test_an_unknown_command_names_the_nearest():
    _, err = run("valdate", code=2)
    assert 'did you mean "validate"?' in err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_a_script_that_completes_the_program(shell):
    env = {**os.environ, "_MLSERVER_PYFUNC_COMPLETE": f"{shell}_source"}
    out = subprocess.check_output([PROGRAM], env=env, text=True)
    assert f"_MLSERVER_PYFUNC_COMPLETE={shell}_complete" in out


def completed(words):
    env = {
        **os.environ,
        "_MLSERVER_PYFUNC_COMPLETE": "bash_complete",
        "COMP_WORDS": f"mlserver-pyfunc {words}",
        "COMP_CWORD": str(len(words.split(" "))),
    }
    return subprocess.check_output([PROGRAM], env=env, text=True).strip()


def test_the_shell_completes_commands():
    assert completed("va") == "plain,validate"


def test_run_cuts_no_line_in_a_pipe(tmp_path):
    (tmp_path / "function.yaml").write_text(
        "source: {code: 'def f(text): return [t * 40 for t in text]', handler: f}\n"
        "inputs: [{name: text, datatype: BYTES, shape: [1], content_type: str}]\n"
        "outputs: [{name: long, datatype: BYTES, shape: [1], content_type: str}]\n"
    )
    (tmp_path / "model.py").write_text("")
    out, _ = run("run", tmp_path, "-i", "text=word and more, ")
    assert "word and more, " * 40 in out


def test_init_writes_a_function_that_validates_and_runs(hello):
    out, err = run("run", hello, "--input", "numbers=1,2,3,4")
    assert "2  4  6  8" in out.replace("\t", "  ")
    assert re.search(r"[\d.]+ ms", err)


def test_init_keeps_what_is_there(hello):
    _, err = call("init", hello, code=1)
    assert "holds function.yaml" in err
    assert "--force" in err
    call("init", hello, "--force")


def test_init_reads_a_functions_annotations(tmp_path):
    (tmp_path / "code.py").write_text(
        "raise SystemExit('this must not run')\n"
        "import numpy as np\n"
        "from numpy.typing import NDArray\n"
        "def score(features: NDArray[np.float32], names: list[str], k: int = 3, *, context,\n"
        "          flag: bool = False, thing=None) -> tuple[NDArray[np.float64], str]:\n"
        "    return features\n"
    )
    call("init", tmp_path / "served", "--from", tmp_path / "code.py:score", "--name", "scorer")
    out = (tmp_path / "served" / "function.yaml").read_text()
    import yaml

    written = yaml.safe_load(out)
    assert written["model_name"] == "scorer"
    assert written["source"] == {"source": "../code.py", "handler": "score"}
    assert [(t["name"], t["datatype"], t["shape"]) for t in written["inputs"]] == [
        ("features", "FP32", [-1]),
        ("names", "BYTES", [-1]),
        ("k", "INT64", [1]),
        ("flag", "BOOL", [1]),
    ]
    assert [t.get("optional", False) for t in written["inputs"]] == [False, False, True, True]
    assert [t.get("default") for t in written["inputs"]] == [None, None, 3, False]
    assert re.findall(r"name: (\w+).*# a guess: (.*)", out) == [
        ("features", "shape"), ("output_0", "shape"),
    ]  # fmt: skip
    assert [(t["name"], t["datatype"]) for t in written["outputs"]] == [
        ("output_0", "FP64"),
        ("output_1", "BYTES"),
    ]
    assert "nothing wrong" in call("validate", tmp_path / "served")[0]


@pytest.mark.parametrize(
    ("annotation", "tensor"),
    [
        ("float | None", ("FP64", [1])),
        ("None | int", ("INT64", [1])),
        ("Optional[str]", ("BYTES", [1])),
        ("Union[bytes, None]", ("BYTES", [1])),
        ("Annotated[Optional[bool], 'x']", ("BOOL", [1])),
        ("list[list[float]]", ("FP64", [-1, -1])),
        ("list[list[list[int]]]", ("INT64", [-1, -1, -1])),
        ("'npt.NDArray[np.int8]'", ("INT8", [-1])),
        ("'some words'", ("FP32", [-1])),
        ("Missing", ("FP32", [-1])),
    ],
)
def test_init_reads_each_kind_of_annotation(annotation, tensor, tmp_path):
    imports = "import numpy as np, numpy.typing as npt\nfrom typing import *\n"
    (tmp_path / "code.py").write_text(f"{imports}def f(on: {annotation}) -> {annotation}: ...\n")
    call("init", tmp_path / "f", "--from", tmp_path / "code.py:f")
    read = definition.read(tmp_path / "f" / "function.yaml")
    assert [(t.name, (t.datatype, t.shape)) for t in read.inputs] == [("on", tensor)]
    assert [(t.datatype, t.shape) for t in read.outputs] == [tensor]


@pytest.mark.parametrize("annotation", ["dict[str, float]", "int | str", "None", "object"])
def test_init_refuses_a_result_that_would_not_fit(annotation, tmp_path):
    (tmp_path / "code.py").write_text(f"def f(x: int) -> {annotation}: ...\n")
    _, err = call("init", tmp_path / "f", "--from", tmp_path / "code.py:f", code=3)
    assert "the result of the handler" in err
    assert "write its type, such as -> float" in err
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize("handler", ["Model.predict", "Model"])
def test_init_describes_methods_and_callable_classes(handler, tmp_path):
    (tmp_path / "code.py").write_text(
        "class Model:\n"
        "    def __init__(self, scale=2): self.scale = scale\n"
        "    def predict(self, x: int) -> int: return x * self.scale\n"
        "    def __call__(self, x: int) -> int: return x * self.scale\n"
    )
    call("init", tmp_path / "f", "--from", f"{tmp_path / 'code.py'}:{handler}")
    out, _ = call("run", tmp_path / "f", "--input", "x=3", "--json")
    assert json.loads(out)["outputs"][0]["data"] == [6]


def test_init_from_what_is_not_there_says_so(tmp_path):
    (tmp_path / "code.py").write_text("def a(): pass\n")
    _, err = call("init", tmp_path / "x", "--from", tmp_path / "code.py:b", code=3)
    assert 'no function "b", it has a' in err
    assert not (tmp_path / "x").exists()


def test_validate_shows_rule_file_and_line_and_fails(hello, tmp_path):
    (tmp_path / "function.yaml").write_text(
        "source: {source: m.py, handler: f}\nouputs: []\n"
        "outputs: [{name: y, datatype: FP32, shape: [1]}]\n"
    )
    (tmp_path / "m.py").write_text("def f(): return 1\n")
    out, _ = call("validate", tmp_path, code=1)
    assert "function.yaml:2:1: error D101: ouputs: unknown key, did you mean" in out
    (finding,) = json.loads(call("validate", tmp_path, "--json", code=1)[0])
    assert (finding["rule"], finding["line"], finding["severity"]) == ("D101", 2, "error")


@pytest.mark.parametrize("isolation", ["none", "process"])
def test_an_interrupt_ends_run_at_once(tmp_path, isolation):
    mark = tmp_path / "began"
    tmp_path.joinpath("model.py").write_text(
        "import os, time\n"
        f"def predict(x):\n    open({str(mark)!r}, 'w').write(str(os.getpid()))\n"
        "    time.sleep(3600)\n"
    )
    tmp_path.joinpath("function.yaml").write_text(
        "model_name: sleeper\nsource: {source: model.py, handler: predict}\n"
        "inputs: [{name: x, datatype: FP32, shape: [-1]}]\n"
        "outputs: [{name: y, datatype: FP32, shape: [-1]}]\n"
        f"serving: {{isolation: {isolation}, timeout: 3600}}\n"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([PROGRAM, "run", tmp_path, "-i", "x=1"], stdout=pipe, stderr=pipe) as it:
        wait_until(lambda: mark.exists() and mark.read_text())
        it.send_signal(signal.SIGINT)
        assert it.communicate(timeout=60) == (b"", b"")
        assert it.returncode == -signal.SIGINT
    wait_until(lambda: not psutil.pid_exists(int(mark.read_text())))


def test_run_answers_a_request_file_in_the_protocols_form(hello, tmp_path):
    tensor = {"name": "numbers", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}
    body = json.dumps({"id": "a", "inputs": [tensor]})
    (tmp_path / "request.json").write_text(body)
    for file, stdin in ((tmp_path / "request.json", None), ("-", body.encode())):
        answer = json.loads(call("run", hello, "--request", file, "--json", stdin=stdin)[0])
        assert answer["id"] == "a"
        assert answer["outputs"][1]["data"] == [20.0]


def test_run_reads_arrays_tables_pictures_and_standard_input(hello, tmp_path):
    np.save(tmp_path / "n.npy", np.ones((2, 4)))
    (tmp_path / "n.csv").write_text("a,b,c,d\n1,2,3,4\n5,6,7,8\n")
    (tmp_path / "n.json").write_text("[[1, 1, 1, 1]]")
    totals = {}
    for value, stdin in (
        (f"@{tmp_path / 'n.npy'}", None),
        (f"@{tmp_path / 'n.csv'}", None),
        (f"@{tmp_path / 'n.json'}", None),
        ("@-", b"[[2, 2, 2, 2]]"),
    ):
        out, _ = call("run", hello, "-i", f"numbers={value}", "--json", stdin=stdin)
        totals[value[-3:]] = json.loads(out)["outputs"][1]["data"]
    assert list(totals.values()) == [[8, 8], [20, 52], [8], [16]]

    (tmp_path / "function.yaml").write_text(
        "source: {code: 'def f(image): return image.mean(axis=(0, 1))', handler: f}\n"
        "inputs: [{name: image, datatype: UINT8, shape: [-1, -1, 3]}]\n"
        "outputs: [{name: color, datatype: FP64, shape: [3]}]\n"
    )
    Image.new("RGB", (3, 2), (10, 20, 30)).save(tmp_path / "p.png")
    out, _ = call("run", tmp_path, "-i", f"image=@{tmp_path / 'p.png'}", "--json")
    assert json.loads(out)["outputs"][0]["data"] == [10, 20, 30]


def test_run_streams():
    out, _ = call("run", FUNCTIONS / "shout", "-i", "text=a b", "--json")
    assert [json.loads(line)["outputs"][0]["data"] for line in out.splitlines()] == [["A"], ["B"]]


@pytest.mark.parametrize(
    ("value", "code", "message"),
    [
        ("x=1.5", 2, "whole numbers"),
        ("x=a", 2, "expected numbers, or @FILE"),
        ("z=1", 2, 'no input "z", expected x'),
        ("x=@nowhere.npy", 2, "No such file"),
        ("x=[[1]]", 0, ""),
        ("x=7", 1, "seven is not to my taste"),
    ],
)
def test_run_says_what_is_wrong_with_a_value(value, code, message):
    _, err = call("run", FUNCTIONS / "flaky", "-i", value, code=code)
    assert message in err


def test_a_function_that_does_not_load_exits_with_three(tmp_path):
    (tmp_path / "function.yaml").write_text(
        "source: {code: 'import absent_module', handler: f}\n"
        "outputs: [{name: y, datatype: FP32, shape: [1]}]\n"
    )
    _, err = call("run", tmp_path, code=3)
    assert "failed to load: import: ModuleNotFoundError" in err
    assert "next: " in err


def test_schema_prints_the_definitions_json_schema():
    assert run("schema")[0] == SCHEMA.read_text()


def test_output_on_no_terminal_has_no_escapes(hello):
    out, err = call("run", hello, "--random")
    assert "\x1b" not in out + err


def test_lock_pins_the_source_and_validate_tells_what_changed(tmp_path):
    call("init", tmp_path / "f")
    call("lock", tmp_path / "f")
    assert "nothing wrong" in call("validate", tmp_path / "f")[0]
    with (tmp_path / "f" / "model.py").open("a") as file:
        file.write("# edited\n")
    assert " S303: " in call("validate", tmp_path / "f", code=1)[0]
    assert "failed to load: fetch" in call("run", tmp_path / "f", "--random", code=3)[1]
    call("lock", tmp_path / "f")
    call("run", tmp_path / "f", "--random")


def test_env_says_that_the_serving_interpreter_will_do(hello):
    assert "(the one that serves)" in call("env", hello)[0]
    facts = json.loads(call("env", hello, "--json")[0])
    assert facts == {"python": sys.executable, "unmet": [], "resolved": {}}


def test_env_makes_what_the_function_needs_and_prunes_it(tmp_path, monkeypatch):
    monkeypatch.setenv("MLSERVER_PYFUNC_CACHE", str(tmp_path / "cache"))
    (tmp_path / "function.yaml").write_text(
        "source: {code: 'def f(): return 1', handler: f}\nrequirements: [iniconfig==1.1.1]\n"
        "outputs: [{name: y, datatype: FP32, shape: [1]}]\n"
    )
    # In a process of its own, since one that has used an environment keeps it.
    out, _ = run("env", tmp_path)
    assert 'not here: expected "iniconfig==1.1.1"' in out
    assert "  iniconfig==1.1.1" in out
    python = re.search(r"^python: (\S+)", out, re.M)[1]
    version = "import importlib.metadata as m; print(m.version('iniconfig'))"
    assert subprocess.check_output([python, "-c", version], text=True) == "1.1.1\n"
    assert "removed " in run("env", "--prune")[0]
    assert "nothing to remove" in run("env", "--prune")[0]
    assert not Path(python).exists()


def test_an_isolated_function_runs_by_the_same_commands(hello, tmp_path):
    text = (hello / "function.yaml").read_text() + "serving: {isolation: process}\n"
    (tmp_path / "function.yaml").write_text(text)
    (tmp_path / "model.py").write_text((hello / "model.py").read_text())
    out, err = run("run", tmp_path, "-i", "numbers=1,2,3,4")
    assert "2  4  6  8" in out
    assert "ms" in err


@pytest.mark.parametrize("name", ["a b", "a/b"])
def test_init_refuses_a_name_that_no_model_can_have(tmp_path, name):
    _, err = call("init", tmp_path, "--name", name, code=1)
    assert err == f'error: --name: expected text without spaces and slashes, got "{name}"\n'
    assert not list(tmp_path.iterdir())
