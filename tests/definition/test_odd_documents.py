"""Odd documents: a definition loads or is refused by one error, and `validate` says the same."""

from pathlib import Path

import pytest

from mlserver_pyfunc.definition import read
from mlserver_pyfunc.definition.yaml_reader import MAX_BYTES, load, read_yaml
from mlserver_pyfunc.errors import DefinitionError, SourceError
from mlserver_pyfunc.sources import lock
from mlserver_pyfunc.sources.tree import LOCK_NAME
from mlserver_pyfunc.validation import validate

GOOD = """source: {source: model.py, handler: f}
inputs: [{name: x, datatype: FP32, shape: [-1]}]
outputs: [{name: y, datatype: FP32, shape: [-1]}]
"""
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
MERGE_BOMB = "m0: &m0 {k: v}\n" + "".join(
    f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 9)}]}}\n" for n in range(1, 12)
)

# Name, document, the line of the error and a part of it.
REFUSED = [
    ("timestamp tag", GOOD + "model_version: !!timestamp 2024-02-28\n", 4, "JSON has too"),
    ("alias bomb", BOMB, 6, "aliases expanded"),
    ("merge bomb", MERGE_BOMB, 6, "aliases expanded"),
    ("repeated long text", f"a: &a {'x' * 1_000_000}\nb: [{'*a, ' * 40}]\n", 2, "expanded"),
    ("list in itself", GOOD + "serving: &b [*b]\n", 4, "contains it"),
    ("mapping in itself", GOOD + "serving: &b {workers: *b}\n", 4, "contains it"),
    ("merge of itself", GOOD + "serving: &b {<<: *b}\n", 4, "contains it"),
    ("alias without an anchor", GOOD + "serving: *b\n", 4, "undefined alias"),
    ("tab as indentation", GOOD + "serving:\n\tworkers: 1\n", 5, "not YAML"),
    ("Python tag", "!!python/object/apply:os.system ['true']", 1, "JSON has too"),
    ("unknown tag", GOOD + "serving: !mine {workers: 1}\n", 4, '"!mine"'),
    ("text tagged int", GOOD + "serving: {workers: !!int many}\n", 4, "many"),
    ("text tagged bool", GOOD + "model_name: !!bool maybe\n", 4, "maybe"),
    ("hexadecimal without digits", GOOD + "serving: {workers: 0x_}\n", 4, "0x_"),
    ("decimal of 5,000 digits", GOOD + f"model_version: {'9' * 5000}\n", 4, "100 characters"),
    ("hexadecimal of 5,000 digits", GOOD + f"model_version: 0x{'f' * 5000}\n", 4, "100 char"),
    ("sexagesimal of 5,000 digits", GOOD + f"model_version: 1{':1' * 2500}\n", 4, "100 char"),
    ("NaN as a key", GOOD + ".nan: 1\n", 4, "expected text as a key, got .nan"),
    ("number as a key", GOOD + "7: 1\n", 4, "expected text as a key, got 7"),
    ("null as a key", GOOD + "serving: {~: 1}\n", 4, "expected text as a key, got ~"),
    ("yes as a key", GOOD + "init_parameters: {yes: 1}\n", 4, "got yes: write it in quotes"),
    ("list as a key", GOOD + "? [a, b]\n: 1\n", 4, "expected text as a key"),
    ("key twice", GOOD + "model_name: a\nmodel_name: b\n", 5, '"model_name" is given twice'),
    ("key twice below", GOOD + "serving: {workers: 1, workers: 2}\n", 4, '"workers" is given'),
    ("key twice in a list key", GOOD + "? {a: 1, a: 2}\n: 1\n", 4, '"a" is given twice'),
    ("empty", "", None, "expected a mapping, got nothing"),
    ("comment only", "# nothing\n", None, "expected a mapping, got nothing"),
    ("list", "- source\n", None, "expected a mapping, got list"),
    ("text", "function\n", None, "expected a mapping, got str"),
    ("date only", "2024-01-01\n", None, "expected a mapping, got str"),
    ("two documents", GOOD + "---\n" + GOOD, 4, "but found another document"),
    ("UTF-16", GOOD.encode("utf-16"), 1, "expected UTF-8 text"),
    ("UTF-32", GOOD.encode("utf-32"), 1, "expected UTF-8 text"),
    ("Latin-1", (GOOD + "description: caf\xe9\n").encode("latin-1"), 4, "0xe9"),
    ("NUL", GOOD.encode() + b"model_name: a\0b\n", 4, "U+0000"),
    ("control character", GOOD + "model_name: a\x07b\n", 4, "U+0007"),
    ("deep lists", "[" * 5000, 1, "50 lists or mappings in each other"),
    ("deep mappings", "{a: " * 5000, 1, "50 lists or mappings in each other"),
    ("deep blocks", "- " * 5000, 1, "50 lists or mappings in each other"),
    ("too large", "#" * (MAX_BYTES + 1), 1, f"expected up to {MAX_BYTES} bytes"),
    ("too many values", "a: [" + "1," * 100_001 + "]", 1, "100000 values"),
    ("binary that is not base64", GOOD + "model_name: !!binary aGkab\n", 4, "JSON has too"),
    ("set as the inputs", "inputs: !!set {a, b}\n", 1, "JSON has too"),
    ("ordered map", "inputs: !!omap [a: 1, b]\n", 1, "JSON has too"),
    ("bare colon", ":", None, ""),
    ("open quote", "model_name: 'a\n", 2, "not YAML"),
    ("unknown directive version", "%YAML 9.1\n---\na: 1\n", 1, "not YAML"),
    ("infinity as a count", GOOD + "serving: {workers: .inf}\n", None, "serving.workers"),
    ("NaN as a time limit", GOOD + "serving: {timeout: .nan}\n", None, "serving.timeout"),
    ("one tensor twice, as text", "inputs: '[{name: x, datatype: FP32, shape: [1]}, {name: x, "
     "datatype: FP32, shape: [1]}]'\nsource: {source: m.py, handler: f}\n", None, "x"),
]  # fmt: skip

ACCEPTED = [
    ("BOM", b"\xef\xbb\xbf" + GOOD.encode()),
    ("DOS lines", GOOD.replace("\n", "\r\n")),
    ("directive and end", "%YAML 1.1\n---\n" + GOOD + "...\n"),
    ("anchors", "x-a: &a 1\n".replace("x-a", "serving: {workers: &a 2, max_queue: *a} #") + GOOD),
    ("merge key", GOOD + "init_parameters: {a: &a {b: 1}, c: {<<: *a, b: 2}}\n"),
    ("octal", GOOD + "init_parameters: {mode: 0o17, old: 017}\n"),
    ("date as a version", GOOD + "model_version: 2024-02-28\n"),
    ("date that does not exist", GOOD + "model_version: 2024-02-31\n"),
    ("time that does not exist", GOOD + "init_parameters: {at: 2024-01-01 25:00:00}\n"),
    ("JSON", '{"source": {"source": "model.py", "handler": "f"}, "inputs": '
     '[{"name": "x", "datatype": "FP32", "shape": [-1]}], "outputs": '
     '[{"name": "y", "datatype": "FP32", "shape": [-1]}]}'),
]  # fmt: skip


def written(folder: Path, document: str | bytes) -> Path:
    (folder / "model.py").write_text("def f(x):\n    return x\n")
    path = folder / "function.yaml"
    path.write_bytes(document.encode() if isinstance(document, str) else document)
    return path


@pytest.mark.parametrize(
    ("document", "line", "message"),
    [case[1:] for case in REFUSED],
    ids=[case[0] for case in REFUSED],
)
def test_refuses_an_odd_document_in_one_error(tmp_path, document, line, message):
    path = written(tmp_path, document)
    with pytest.raises(DefinitionError) as caught:
        read(path)
    text = str(caught.value)
    assert message in text
    assert len(text) < 1000
    assert text.startswith(f"{path}:" if line is None else f"{path}:{line}: ")


@pytest.mark.parametrize(
    ("document", "line"), [case[1:3] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_validate_finds_what_an_odd_document_is_refused_for(tmp_path, document, line):
    path = written(tmp_path, document)
    findings = [each for each in validate(tmp_path) if each.severity == "error"]
    assert findings
    assert line is None or (path, line) in [(each.file, each.line) for each in findings]


@pytest.mark.parametrize(
    "document", [case[1] for case in ACCEPTED], ids=[case[0] for case in ACCEPTED]
)
def test_accepts_what_is_only_unusual(tmp_path, document):
    path = written(tmp_path, document)
    assert read(path).source.handler == "f"
    assert [each for each in validate(tmp_path) if each.severity == "error"] == []


def test_a_merge_key_is_not_a_repeated_one():
    assert load("a: &a {b: 1, c: 1}\nd: {<<: *a, b: 2}\n", "x")["d"] == {"b": 2, "c": 1}


def test_a_date_is_text_as_in_json():
    assert load("since: 2024-02-29\nlost: 2024-02-31\n", "x") == {
        "since": "2024-02-29",
        "lost": "2024-02-31",
    }


@pytest.mark.parametrize("document", [BOMB, "version: 1\nversion: 1\n", "version: !!set {}\n"])
def test_a_lock_is_read_by_the_same_rules(tmp_path, document):
    (tmp_path / LOCK_NAME).write_text(document)
    with pytest.raises(SourceError, match=rf"{LOCK_NAME}:\d+: "):
        lock.read(tmp_path)


def test_an_alias_bomb_in_a_text_value_is_left_as_text(tmp_path):
    path = written(tmp_path, GOOD + "requirements: |\n" + "".join(
        f"  {line}\n" for line in BOMB.splitlines()
    ))  # fmt: skip
    with pytest.raises(DefinitionError, match="requirements"):
        read(path)


def test_model_settings_with_tabs_and_emoji_are_validated(tmp_path):
    written(tmp_path, GOOD)
    (tmp_path / "model-settings.json").write_text(
        '{\n\t"name": "\\ud83d\\ude00",\n\t"implementation": "mlserver_pyfunc.PyFuncRuntime"\n}\n'
    )
    assert [each for each in validate(tmp_path) if each.severity == "error"] == []


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_yaml(tmp_path / "none.yaml")
