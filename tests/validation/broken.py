"""Definitions that are broken, and what a check of each must find: rule, file and line.

Every module in them would leave a file behind if it were ever run.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field

RUN_MARK = "open('EXECUTED', 'w').close()\n"
TAIL = """\
inputs: [{name: x, datatype: FP32, shape: [-1]}]
outputs: [{name: y, datatype: FP32, shape: [-1]}]
"""
FILE = "source: {source: model.py, handler: f}\n" + TAIL
MODEL = "def f(x):\n    return x\n"


@dataclass(frozen=True)
class Broken:
    name: str
    definition: str | None
    found: list[tuple[str, str, int]]
    files: dict[str, str] = field(default_factory=dict)

    def texts(self) -> dict[str, str]:
        files = {"model.py": MODEL, **self.files}
        if self.definition is not None:
            files["function.yaml"] = textwrap.dedent(self.definition)
        return {
            name: RUN_MARK + text if name.endswith(".py") else text for name, text in files.items()
        }


def yaml_case(name: str, definition: str, *found: tuple[str, int], **files: str) -> Broken:
    named = {key.replace("__", "/") + ".py": text for key, text in files.items()}
    return Broken(name, definition, [(rule, "function.yaml", line) for rule, line in found], named)


def code_case(name: str, model: str, *found: tuple[str, int], definition: str = FILE) -> Broken:
    """Lines count in model.py after the mark that is put in front."""
    at = [(rule, "model.py", line + 1) for rule, line in found]
    return Broken(name, definition, at, {"model.py": model})


def settings_case(name: str, settings: str, *found: tuple[str, int]) -> Broken:
    at = [(rule, "model-settings.json", line) for rule, line in found]
    return Broken(name, FILE, at, {"model-settings.json": settings})


INLINE = """\
source:
  handler: f
  code: |
    def f(x):
        return x
"""

CASES = [
    Broken("no definition", None, [("D001", ".", 1)]),
    yaml_case("not yaml", "source: {handler: f\n" + TAIL, ("D002", 2)),
    yaml_case("a list", "- source\n", ("D002", 1)),
    yaml_case("empty", "", ("D002", 1)),
    yaml_case("another kind", "kind: serverless\nspec: {}\n", ("D002", 1)),
    yaml_case("key twice", FILE + "model_name: a\nmodel_name: b\n", ("D003", 5)),
    yaml_case("unknown key", FILE + "requirement: [numpy]\n", ("D101", 4)),
    yaml_case(
        "unknown tensor key",
        "source: {source: model.py, handler: f}\ninputs:\n  - name: x\n    dtype: FP32\n"
        "    datatype: FP32\n    shape: [-1]\noutputs: [{name: y, datatype: FP32, shape: [-1]}]\n",
        ("D101", 4),
    ),
    yaml_case("unknown serving key", FILE + "serving:\n  threads: 4\n", ("D101", 5)),
    yaml_case("no source", TAIL, ("D102", 1)),
    yaml_case("no handler", "source:\n  source: model.py\n" + TAIL, ("D102", 1)),
    yaml_case(
        "no datatype",
        "source: {source: model.py, handler: f}\ninputs:\n  - name: x\n    shape: [-1]\n"
        "outputs: [{name: y, datatype: FP32, shape: [-1]}]\n",
        ("D102", 3),
    ),
    yaml_case(
        "unknown datatype",
        "source: {source: model.py, handler: f}\ninputs: [{name: x, datatype: FP32, shape: [1]}]\n"
        "outputs:\n  - name: y\n    datatype: FLOAT\n    shape: [1]\n",
        ("D103", 5),
    ),
    yaml_case(
        "size below -1",
        "source: {source: model.py, handler: f}\ninputs: [{name: x, datatype: FP32, shape: [1]}]\n"
        "outputs:\n  - name: y\n    datatype: FP32\n    shape: [-2]\n",
        ("D103", 6),
    ),
    yaml_case("python version", FILE + 'python_version: "3.8"\n', ("D103", 4)),
    yaml_case("python version as a number", FILE + "python_version: 3.10\n", ("D103", 4)),
    yaml_case("slash in the name", FILE + "model_name: a/b\n", ("D103", 4)),
    yaml_case("no workers", FILE + "serving:\n  workers: 0\n", ("D103", 5)),
    yaml_case("no time", FILE + "serving: {timeout: 0}\n", ("D103", 4)),
    yaml_case(
        "handler is no path", "source:\n  source: model.py\n  handler: f()\n" + TAIL, ("D103", 3)
    ),
    yaml_case(
        "content type of numbers",
        "source: {source: model.py, handler: f}\ninputs:\n"
        "  - {name: x, datatype: FP32, shape: [1], content_type: str}\n"
        "outputs: [{name: y, datatype: FP32, shape: [-1]}]\n",
        ("D103", 3),
    ),
    yaml_case("no origin", "source:\n  handler: f\n" + TAIL, ("D104", 1)),
    yaml_case(
        "two origins",
        "source:\n  handler: f\n  code: 'def f(x): return x'\n  base64: ZGVm\n" + TAIL,
        ("D104", 1),
    ),
    yaml_case(
        "input twice",
        "source: {source: model.py, handler: f}\ninputs:\n"
        "  - {name: x, datatype: FP32, shape: [1]}\n  - {name: x, datatype: FP32, shape: [1]}\n"
        "outputs: [{name: y, datatype: FP32, shape: [1]}]\n",
        ("D105", 4),
    ),
    yaml_case(
        "two inputs for one parameter",
        "source: {source: model.py, handler: f}\ninputs:\n"
        "  - {name: a.b, datatype: FP32, shape: [1]}\n  - {name: a_b, datatype: FP32, shape: [1]}\n"
        "outputs:\n  - {name: a-b, datatype: FP32, shape: [1]}\n"
        "  - {name: a_b, datatype: FP32, shape: [1]}\n",
        ("D105", 4),
    ),
    yaml_case(
        "no outputs",
        "source: {source: model.py, handler: f}\n"
        "inputs: [{name: x, datatype: FP32, shape: [1]}]\noutputs: []\n",
        ("D106", 3),
    ),
    settings_case("settings are not json", '{"name": ', ("M201", 1)),
    settings_case("settings are a list", "[]", ("M201", 1)),
    settings_case("parameters are a list", '{"parameters": ["uri"]}', ("M201", 1)),
    Broken(
        "settings of the server are not json",
        FILE,
        [("M201", "settings.json", 1)],
        {"settings.json": "debug: true"},
    ),
    settings_case(
        "another runtime",
        '{\n  "name": "a",\n  "implementation": "mlserver_sklearn.SKLearnModel"\n}',
        ("M202", 3),
    ),
    settings_case(
        "settings disagree",
        '{\n  "implementation": "mlserver_pyfunc.PyFuncRuntime",\n'
        '  "inputs": [{"name": "x", "datatype": "INT8", "shape": [-1]}]\n}',
        ("M203", 3),
    ),
    Broken(
        "settings disagree, and workers do not count",
        FILE + "serving: {isolation: none, workers: 4}\n",
        [("D108", "function.yaml", 4), ("M203", "model-settings.json", 3)],
        {
            "model-settings.json": '{\n  "implementation": "mlserver_pyfunc.PyFuncRuntime",\n'
            '  "inputs": [{"name": "x", "datatype": "INT8", "shape": [-1]}]\n}'
        },
    ),
    settings_case(
        "host batching",
        '{\n  "implementation": "mlserver_pyfunc.PyFuncRuntime",\n  "max_batch_size": 8\n}',
        ("M204", 3),
    ),
    yaml_case("within itself", FILE + "serving: &b [*b]\n", ("D002", 4)),
    yaml_case("a datatype of NumPy's", FILE.replace("FP32", "float32", 1), ("D103", 2)),
    yaml_case("a shape of any size", FILE.replace("[-1]", "[-1, 99999999, 99999]", 1), ("D103", 2)),
    yaml_case("version as a number", FILE + "model_version: 1.10\n", ("D103", 4)),
    yaml_case("digitalhub object without a spec", "kind: openinference\n" + FILE, ("D002", 1)),
    yaml_case("a file of requirements", FILE + "requirements: requirements.txt\n", ("R501", 4)),
    yaml_case("an option of pip", FILE + "requirements:\n  - -r base.txt\n", ("R501", 5)),
    yaml_case(
        "joined requests of a fixed shape",
        FILE.replace("[-1]", "[4]", 1) + "serving: {batch: {max_size: 4}}\n",
        ("D107", 2),
    ),
    yaml_case(
        "joined requests of a fixed shape behind a table",
        FILE.replace(
            "[{name: x,", "[{name: t, columns: [{name: a, datatype: FP32}, {name: b, "
            "datatype: FP32}]},\n  {name: x,", 1
        ).replace("[-1]", "[4]", 1) + "serving: {batch: {max_size: 4}}\n",
        ("D107", 3),
    ),
    yaml_case(
        "joined requests whose rows stand elsewhere",
        FILE.replace("[-1]", "[rows, rows]", 1) + "serving: {batch: {max_size: 4}}\n",
        ("D107", 2),
    ),
    yaml_case(
        "workers in the server's process",
        FILE + "serving:\n  isolation: none\n  workers: 4\n  memory_limit: 1G\n",
        ("D108", 6), ("D108", 7),
    ),
    yaml_case(
        "an option of another name", FILE + "deployment:\n  replica: 2\n", ("D109", 5)
    ),
    yaml_case("no such scheme", FILE.replace("model.py", "ftp://host/model.py"), ("S301", 1)),
    yaml_case(
        "a web page", FILE.replace("model.py", "https://github.com/owner/name"), ("S301", 1)
    ),
    code_case(
        "a typing error in an init parameter",
        "def f(x):\n    return x\n\ndef setup(context, weights=None):\n    pass\n",
        ("C408", 4),
        definition=FILE.replace("handler: f", "handler: f, init_function: setup")
        + "init_parameters: {weigths: a}\n",
    ),
    code_case(
        "no annotation and no tensors",
        "def f(x):\n    return x\n",
        ("C405", 1),
        definition="source: {source: model.py, handler: f}\n",
    ),
    code_case(
        "an annotation that only a run can tell",
        "from operator import neg as Rows\ndef f(x: Rows) -> Rows:\n    return x\n",
        ("C409", 2),
        definition="source: {source: model.py, handler: f}\n",
    ),
    yaml_case("no such file", "source: {source: other.py, handler: f}\n" + TAIL, ("S301", 1)),
    yaml_case(
        "wrong digest",
        "source:\n  source: model.py\n  handler: f\n  sha256: " + "a" * 64 + "\n" + TAIL,
        ("S301", 2),
    ),
    yaml_case(
        "not base64", "source:\n  handler: f\n  base64: '***'\n" + TAIL, ("S301", 1)
    ),
    yaml_case(
        "folder above",
        "source:\n  source: .\n  handler: model:f\n  subdirectory: ../..\n" + TAIL,
        ("S301", 2),
    ),
    code_case("syntax error", "def f(x):\n    return (\n", ("C401", 2)),
    yaml_case(
        "syntax error inline",
        "source:\n  handler: f\n  code: |\n    def f(x)\n        return x\n" + TAIL,
        ("C401", 4),
    ),
    yaml_case("no such module", "source:\n  source: .\n  handler: modle:f\n" + TAIL, ("C402", 3)),
    yaml_case("no module named", "source:\n  source: .\n  handler: f\n" + TAIL, ("C402", 3)),
    yaml_case("no such handler", "source:\n  source: model.py\n  handler: g\n" + TAIL, ("C403", 3)),
    yaml_case(
        "no such init",
        "source:\n  source: model.py\n  handler: f\n  init_function: setup\n" + TAIL,
        ("C403", 4),
    ),
    yaml_case(
        "no such method",
        "source:\n  source: model.py\n  handler: Model.predict\n" + TAIL,
        ("C403", 3),
        model="class Model:\n    def run(self, x):\n        return x\n",
    ),
    yaml_case("a name that is only read", FILE, ("C403", 1), model="t = {}\nt[f] = 1\n"),
    code_case("a value", "f = [1, 2]\n", ("C404", 1)),
    code_case("a class that is not callable", "class f:\n    pass\n", ("C404", 1)),
    code_case("a parameter too many", "def f(x, scale):\n    return x\n", ("C405", 1)),
    code_case(
        "a parameter of a method",
        "class Model:\n    def predict(self, x, scale):\n        return x\n",
        ("C405", 2),
        definition=FILE.replace("handler: f", "handler: Model.predict"),
    ),
    code_case("two names for one input", "async def f(a, *, b):\n    return a\n", ("C405", 1)),
    code_case(
        "init asks for weights alone",
        "def f(x):\n    return x\n\ndef setup(weights):\n    pass\n",
        ("C406", 4),
        definition=FILE.replace("handler: f", "handler: f, init_function: setup"),
    ),
    code_case(
        "init asks for more",
        "def f(x):\n    return x\n\ndef setup(context, weights):\n    pass\n",
        ("C406", 4),
        definition=FILE.replace("handler: f", "handler: f, init_function: setup"),
    ),
    code_case(
        "a package that nobody has", "import nosuchpackage\ndef f(x):\n    return x\n", ("C410", 1)
    ),
    Broken(
        "inline code with a package that nobody has",
        "source:\n  handler: f\n  code: |\n    def f(x):\n        import no.such\n"
        "        return x\n"
        + TAIL,
        [("C410", "function.yaml", 5)],
    ),
    Broken(
        "a file beside the code",
        FILE,
        [("C411", "model.py", 3)],
        {"model.py": "def f(x):\n    open('a.bin').close()\n    return x\n", "a.bin": ""},
    ),
    code_case("self without a class", "def f(self, x):\n    return x\n", ("C412", 1)),
    yaml_case("a key without a value", FILE + "requirement:\n", ("D101", 4)),
    yaml_case("an empty key of a deployment", FILE + "deployment:\n  replica:\n", ("D109", 5)),
    yaml_case(
        "a comma in a flow mapping",
        FILE.replace("shape: [-1]}", "shape: [-1], description: cold, warm}", 1),
        ("D101", 2),
    ),
    code_case(
        "an input that nobody takes",
        "def f(x):\n    return x\n",
        ("C407", 1),
        definition=FILE.replace(
            "inputs: [{", "inputs: [{name: z, datatype: BOOL, shape: [1]}, {"
        ),
    ),
    yaml_case("not a requirement", FILE + "requirements:\n  - numpy>=\n", ("R501", 5)),
]  # fmt: skip
