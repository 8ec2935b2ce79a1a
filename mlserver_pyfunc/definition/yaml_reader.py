"""The one reader of YAML: bounded in size, depth and expansion, and strict about repeated keys.

All functions raise YamlError, which names the file and the line. Values are those that JSON has
too, since workers get a definition as JSON: a date is text, and a key is text.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from mlserver_pyfunc.errors import DefinitionError

MAX_BYTES = 4 << 20
"""Largest document, in bytes."""

MAX_DEPTH = 50
"""Allowed nesting of lists and mappings."""

MAX_NODES = 100_000
"""Allowed number of values, with each alias counted as all that it stands for."""

MAX_NUMBER_CHARS = 100
"""Longest integer, in characters."""

_CHARS_PER_NODE = 100
_TAG = "tag:yaml.org,2002:"
_JSON_TAGS = frozenset(
    _TAG + name for name in ("null", "bool", "int", "float", "str", "seq", "map")
)


class YamlError(DefinitionError):
    """A document cannot be read."""

    def __init__(self, where: str, line: int, problem: str, column: int = 0) -> None:
        super().__init__(f"{where}:{line}: {problem}")
        self.problem = problem
        self.line = line
        self.column = column


def read_yaml(path: Path) -> Any:
    """Returns the value of a YAML or JSON file. Raises OSError too."""
    return load(read_text(path), str(path))


def read_text(path: Path) -> str:
    """Returns the text of a YAML or JSON file. Raises OSError too."""
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise YamlError(str(path), 1, f"expected up to {MAX_BYTES} bytes, got more")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problem = f"not YAML: expected UTF-8 text, got byte 0x{content[error.start]:02x}"
        raise YamlError(str(path), line, problem) from None


def load(text: str, where: str) -> Any:
    """Returns the value of a document, whose mappings have no key twice."""
    root = compose(text, where)
    for line, key in repeated_keys(root):
        raise YamlError(where, line, f'"{key}" is given twice in one mapping')
    return construct(root, where)


def compose(text: str, where: str) -> yaml.Node | None:
    """Returns the tree of a document; None if it is empty. The tree has no cycles."""
    if len(text) > MAX_BYTES:
        raise YamlError(where, 1, f"expected up to {MAX_BYTES} characters, got {len(text)}")
    try:
        return _Loader(text).get_single_node()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problem = f"not YAML: character U+{ord(text[error.position]):04X} is not allowed"
        raise YamlError(where, line, problem) from None
    except yaml.MarkedYAMLError as error:
        raise _worded(error, where) from None


def construct(root: yaml.Node | None, where: str) -> Any:
    """Returns the value of a tree. Merge keys change the tree: look for repeated ones before."""
    if root is None:
        return None
    try:
        return _Loader("").construct_document(root)
    except yaml.MarkedYAMLError as error:
        raise _worded(error, where) from None


def repeated_keys(node: yaml.Node | None) -> Iterator[tuple[int, str]]:
    """Yields line and name of each key that its mapping has already."""
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            yield from repeated_keys(child)
    if not isinstance(node, yaml.MappingNode):
        return
    seen = set()
    for name, child in node.value:
        if isinstance(name, yaml.ScalarNode):
            key = (name.tag, name.value)
            if key in seen:
                yield name.start_mark.line + 1, name.value
            seen.add(key)
        yield from repeated_keys(name)
        yield from repeated_keys(child)


class _Loader(yaml.SafeLoader):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._nodes = 0
        # The number of values that each finished node stands for.
        self._sizes: dict[yaml.Node, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> Any:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        is_alias = self.check_event(yaml.AliasEvent)
        before = self._nodes
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _refused(f"expected up to {MAX_DEPTH} lists or mappings in each other", mark)
        node: Any = super().compose_node(parent, index)
        self._depth -= 1
        if is_alias:
            # A node that is not finished contains the alias.
            if node not in self._sizes:
                raise _refused("an alias stands for a list or mapping that contains it", mark)
            self._nodes += self._sizes[node]
        else:
            is_text = isinstance(node, yaml.ScalarNode)
            self._nodes += 1 + (len(node.value) // _CHARS_PER_NODE if is_text else 0)
            self._sizes[node] = self._nodes - before
        if self._nodes > MAX_NODES:
            raise _refused(f"expected up to {MAX_NODES} values, aliases expanded", mark)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if node.tag not in _JSON_TAGS:
            raise _refused(f'expected a value that JSON has too, got "{node.tag}"', node.start_mark)
        if node.tag == _TAG + "int" and len(node.value) > MAX_NUMBER_CHARS:
            problem = f"expected a number of up to {MAX_NUMBER_CHARS} characters"
            raise _refused(problem, node.start_mark)
        try:
            return super().construct_object(node, deep)
        except yaml.YAMLError:
            raise
        except Exception as error:  # PyYAML checks by regular expressions only.
            reason = f"{error}; write it in quotes if it is text"
            shown = f'"{node.value[:40]}"' if isinstance(node, yaml.ScalarNode) else node.tag
            raise _refused(f"{shown}: {reason}", node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        for key, _ in node.value:
            if key.tag not in (_TAG + "str", _TAG + "merge"):
                shown = key.value if isinstance(key, yaml.ScalarNode) else key.tag
                problem = f"expected text as a key, got {str(shown)[:40]}: write it in quotes"
                raise _refused(problem, key.start_mark)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in forms if tag != _TAG + "timestamp"]
    for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _refused(problem: str, mark: yaml.Mark) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(None, None, problem, mark, "refused")


def _worded(error: yaml.MarkedYAMLError, where: str) -> YamlError:
    mark = error.problem_mark or error.context_mark
    problem = error.problem or error.context or "cannot be read"
    if "'\\t'" in problem:
        problem = "got a tab, expected spaces"
    if problem.startswith("expected ','"):
        problem += ": is a comma, a bracket or a quote missing before it?"
    text = problem if error.note == "refused" else f"not YAML: {problem}"
    if mark is None:
        return YamlError(where, 1, text)
    return YamlError(where, mark.line + 1, text, mark.column + 1)
