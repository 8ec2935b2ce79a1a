"""Mistakes of beginners, and what the answer to each must say.

Each answer must name what is wrong, where, what was expected and what there is (`says`), and what
to do (`next_step`). What is expected is often the next step, too. Of these 58 answers:

| | clear | with a next step |
|---|---|---|
| before the answers were reworded | 53 (91 %) | 43 (74 %) |
| now | 58 (100 %) | 57 (98 %) |
"""

from __future__ import annotations

from dataclasses import dataclass, field

DEFINITION = """\
source: {source: model.py, handler: predict}
inputs: [{name: x, datatype: FP32, shape: [-1, 4]}]
outputs: [{name: y, datatype: FP32, shape: [-1]}]
"""
MODEL = "def predict(x):\n    return x.sum(axis=1)\n"
TWO = DEFINITION + "  - {name: z, datatype: FP32, shape: [-1]}\n"
TWO = TWO.replace(
    "outputs: [{name: y, datatype: FP32, shape: [-1]}]",
    "outputs:\n  - {name: y, datatype: FP32, shape: [-1]}",
)


@dataclass(frozen=True)
class Mistake:
    name: str
    command: str
    says: list[str]
    next_step: str
    files: dict[str, str] = field(default_factory=dict)


def definition(
    name: str, old: str, new: str, *says: str, next_step: str, command: str = "validate"
) -> Mistake:
    assert old in DEFINITION
    return Mistake(
        name, command, list(says), next_step, {"function.yaml": DEFINITION.replace(old, new)}
    )


def added(name: str, line: str, *says: str, next_step: str, command: str = "validate") -> Mistake:
    return Mistake(
        name, command, list(says), next_step, {"function.yaml": DEFINITION + line + "\n"}
    )


def code(
    name: str, text: str, *says: str, next_step: str, command: str = "run . -i 1,2,3,4"
) -> Mistake:
    return Mistake(name, command, list(says), next_step, {"model.py": text})


MISTAKES = [
    code(
        "wrong indentation",
        "def predict(x):\nreturn x\n",
        "model.py:2",
        "indented block",
        next_step="indented block",
        command="validate",
    ),
    code(
        "wrong indentation, run",
        "def predict(x):\nreturn x\n",
        "model.py",
        "line 2",
        "indented block",
        next_step="mlserver-pyfunc validate .",
    ),
    definition(
        "no handler",
        ", handler: predict",
        "",
        "function.yaml:1",
        "source.handler: missing",
        next_step="handler",
    ),
    definition(
        "handler of another name",
        "handler: predict",
        "handler: predcit",
        "function.yaml:1:37",
        'model.py has no "predcit"',
        next_step="it has predict",
    ),
    definition(
        "handler of another name, run",
        "handler: predict",
        "handler: predcit",
        'no "predcit"',
        "it has predict",
        next_step="mlserver-pyfunc validate .",
        command="run . -i 1,2,3,4",
    ),
    definition(
        "handler with a dot",
        "handler: predict",
        "handler: model.predict",
        'no "model"',
        next_step="it has predict",
    ),
    definition(
        "handler as a call",
        "handler: predict",
        "handler: predict()",
        "function.yaml:1",
        'got "predict()"',
        next_step='expected "module.path:callable" or "callable"',
    ),
    definition(
        "datatype of NumPy",
        "FP32, shape: [-1, 4]",
        "float32, shape: [-1, 4]",
        "function.yaml:2:30",
        'unknown datatype "float32"',
        next_step='did you mean "FP32"',
    ),
    definition(
        "datatype nobody has",
        "FP32, shape: [-1, 4]",
        "decimal, shape: [-1, 4]",
        'unknown datatype "decimal"',
        next_step="expected one of BOOL, UINT8",
    ),
    definition(
        "shape as text",
        "[-1, 4]",
        '"4, 4"',
        "function.yaml:2",
        "inputs.0.shape: expected a list",
        'got "4, 4"',
        next_step="expected a list",
    ),
    definition(
        "shape with a question mark",
        "[-1, 4]",
        '["?", 4]',
        "function.yaml:2",
        'got "?"',
        next_step="expected a size, -1, or a name",
    ),
    definition(
        "dtype for datatype",
        "datatype: FP32, shape: [-1, 4]",
        "dtype: FP32, shape: [-1, 4]",
        "inputs.0.dtype: unknown key",
        next_step='did you mean "datatype"',
    ),
    definition(
        "missing comma",
        "name: x, datatype",
        "name: x datatype",
        "function.yaml:2",
        next_step="comma",
    ),
    definition(
        "missing bracket",
        "shape: [-1, 4]}]",
        "shape: [-1, 4}]",
        "function.yaml:2",
        next_step="expected ',' or ']'",
    ),
    Mistake(
        "tab for indentation",
        "validate",
        ["function.yaml:2", "tab"],
        "spaces",
        {"function.yaml": "source:\n\tsource: model.py\n"},
    ),
    added(
        "unknown key",
        "requirement: [numpy]",
        "function.yaml:4:1",
        "requirement: unknown key",
        next_step='did you mean "requirements"',
    ),
    added(
        "unknown python",
        'python_version: "2.7"',
        "function.yaml:4",
        'got "2.7"',
        next_step="expected one of 3.10",
    ),
    added(
        "python as a number",
        "python_version: 3.10",
        "function.yaml:4",
        "got the number 3.1",
        next_step='write it in quotes, "3.10"',
    ),
    added(
        "requirements file",
        "requirements: [requirements.txt]",
        '"requirements.txt" is a file',
        next_step="expected the packages themselves, one a line",
    ),
    added(
        "requirement with a typo",
        'requirements: ["numpy=>1"]',
        '"numpy=>1" is no requirement',
        next_step="numpy>=1",
    ),
    added(
        "unknown isolation",
        "serving: {isolation: docker}",
        "serving.isolation",
        'got "docker"',
        next_step="expected 'auto', 'none' or 'process'",
    ),
    added(
        "memory in words",
        "serving: {memory_limit: 2 gigs}",
        "serving.memory_limit",
        '"2 gigs"',
        next_step="for example 512M",
    ),
    added(
        "workers in the server",
        "serving: {workers: 4}",
        "serving.workers",
        next_step="set serving.isolation to process",
    ),
    added(
        "a comma in a text",
        "description: x\nbuild: {env: {A: b}, labels: a, c}",
        "function.yaml:5",
        next_step="write the value in quotes",
    ),
    Mistake(
        "batch of fixed rows",
        "validate",
        ["outputs", '"y"', "leading -1", "got [1]"],
        "leading -1",
        {
            "function.yaml": DEFINITION.replace("shape: [-1]", "shape: [1]")
            + "serving: {batch: {max_size: 4}}\n"
        },
    ),
    definition(
        "no such source",
        "model.py",
        "modle.py",
        "function.yaml:1",
        '"modle.py"',
        next_step="model.py",
    ),
    definition(
        "no such source, run",
        "model.py",
        "modle.py",
        '"modle.py"',
        next_step="mlserver-pyfunc validate .",
        command="run . -i 1,2,3,4",
    ),
    definition(
        "no such git reference",
        "model.py",
        "git+file://{here}/repository#nowhere",
        "nowhere",
        "repository",
        next_step="main",
        command="run . -i 1,2,3,4",
    ),
    Mistake(
        "no such folder", "validate nowhere", ["nowhere: no such file or folder"], "function.yaml"
    ),
    Mistake(
        "no such folder, serve",
        "serve nowhere --port 0 --grpc-port 0 --metrics-port 0",
        ["nowhere: no such file or folder"],
        "function.yaml",
    ),
    Mistake(
        "no such model file",
        "run nowhere.onnx",
        ["nowhere.onnx: no such file or folder"],
        "a model file",
    ),
    Mistake(
        "folder without a definition",
        "run empty",
        ["no function definition found", "empty/function.yaml"],
        "mlserver-pyfunc init",
    ),
    Mistake(
        "lock out of date",
        "run . -i 1,2,3,4",
        ["function.lock"],
        "mlserver-pyfunc lock",
        {"function.lock": "source: model.py\nsha256: " + 64 * "a" + "\n"},
    ),
    code(
        "forgotten requirement",
        "import nosuchpackage\ndef predict(x):\n    return x\n",
        "model.py:1",
        "nosuchpackage",
        next_step="requirements",
        command="validate --strict",
    ),
    code(
        "forgotten requirement, run",
        "import nosuchpackage\ndef predict(x):\n    return x\n",
        "nosuchpackage",
        next_step="mlserver-pyfunc validate .",
    ),
    code(
        "self in a function",
        "def predict(self, x):\n    return x\n",
        "model.py:1:13",
        '"self"',
        next_step="remove it",
        command="validate",
    ),
    code(
        "parameter of another name",
        "def predict(a, b):\n    return a\n",
        "model.py:1",
        '"a"',
        "matches nothing",
        next_step="x",
        command="validate",
    ),
    code(
        "exception in the handler",
        "def predict(x):\n    return x / none\n",
        "NameError",
        "none",
        "model.py",
        next_step="line 2",
    ),
    code(
        "result of another shape",
        "def predict(x):\n    return x\n",
        'output "y"',
        "expected shape [-1]",
        "got [1, 4]",
        next_step="expected shape [-1]",
    ),
    code(
        "result of another type",
        "def predict(x):\n    return 'a'\n",
        'output "y"',
        "expected",
        next_step="expected",
    ),
    code(
        "nothing returned",
        "def predict(x):\n    x.sum(axis=1)\n",
        "a value for y",
        "None",
        next_step="return",
    ),
    Mistake(
        "list for two outputs",
        "run . -i 1,2,3,4",
        ["y", "z", "list"],
        "dict",
        {
            "function.yaml": TWO,
            "model.py": "def predict(x):\n    return [x, x, x]\n",
        },
    ),
    code(
        "file of another folder",
        "def predict(x):\n    open('weights.bin')\n    return x\n",
        "weights.bin",
        next_step="source_dir",
        command="validate --strict",
    ),
    code("no input given", MODEL, '"x"', next_step="--input", command="run ."),
    code(
        "input of another name",
        MODEL,
        'no input "z"',
        next_step="expected x",
        command="run . -i z=1",
    ),
    code(
        "words for numbers",
        MODEL,
        '"x"',
        'got "many"',
        next_step="expected numbers, or @FILE",
        command="run . -i x=many",
    ),
    code(
        "input of another shape",
        MODEL,
        'input "x"',
        "expected shape [-1, 4]",
        "got [1, 3]",
        next_step="expected shape [-1, 4]",
        command="run . -i x=[[1,2,3]]",
    ),
    code(
        "input file that is not there",
        MODEL,
        '"x"',
        "nowhere.npy",
        next_step="No such file",
        command="run . -i x=@nowhere.npy",
    ),
    code(
        "request that is no JSON",
        MODEL,
        "--request",
        "not JSON",
        next_step="inputs",
        command="run . --request model.py",
    ),
    Mistake("command with a typo", "valdate", ['no command "valdate"'], 'did you mean "validate"'),
    Mistake("option with a typo", "run --inptu 1", ["--inptu"], "--input"),
    Mistake(
        "port out of range", "serve . --port 99999", ["--port", "99999"], "expected 0 to 65535"
    ),
    Mistake(
        "port taken",
        "serve . --port {taken}",
        ["--port", "{taken}", "is taken"],
        "choose another port, or 0 for a free one",
    ),
    Mistake(
        "no server there",
        "infer http://127.0.0.1:{free}",
        ["127.0.0.1:{free}", "does not answer"],
        "mlserver-pyfunc serve",
    ),
    Mistake("no URL", "infer model.py", ['"model.py"'], "http://HOST:PORT"),
    Mistake(
        "port that is no number",
        "infer http://localhost:http",
        ['"http://localhost:http"'],
        "expected http://HOST:PORT",
    ),
    Mistake("image without a name", "build .", ["no name for the image"], "-t NAME:TAG"),
    Mistake(
        "settings of another runtime",
        "validate",
        ["model-settings.json:1", "mlserver_sklearn.SKLearnModel"],
        'expected "mlserver_pyfunc.PyFuncRuntime"',
        {"model-settings.json": '{"implementation": "mlserver_sklearn.SKLearnModel"}'},
    ),
    Mistake("model.py for a definition", "run model.py", ["model.py"], "model.py:NAME"),
]
