"""`function.lock`: written, binding, and recomputable without us."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mlserver_pyfunc.definition import FunctionDefinition, parse
from mlserver_pyfunc.errors import SourceError
from mlserver_pyfunc.sources import lock
from mlserver_pyfunc.sources.tree import tree_sha256
from tests.places import DOCS

from .servers import FileServer, GitServer, Repository
from .test_http import BUNDLE, sha256, zipped

RENEW = "if that is meant, renew function.lock by mlserver-pyfunc lock"


def definition(
    source: str, requirements: list[str] | None = None, **keys: str
) -> FunctionDefinition:
    origin = {"handler": "model:predict", "source": source, **keys}
    return parse({"source": origin, "requirements": requirements or []})


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """The definition's folder."""
    folder = tmp_path / "function"
    folder.mkdir()
    return folder


@pytest.fixture
def url(git_server: GitServer, repository: Repository) -> str:
    repository.commit({"model.py": "x = 1", "lib/a.py": "a"})
    return f"git+{git_server.url}/repository#main"


def test_without_a_lock_the_source_is_fetched(
    url: str, repository: Repository, beside: Path
) -> None:
    tree = lock.fetch_locked(definition(url), beside)
    assert tree.provenance.as_parameters() == {
        "source": url,
        "commit": repository.head(),
        "tree_sha256": tree_sha256(tree.root),
    }


def test_holds_what_the_source_was(url: str, repository: Repository, beside: Path) -> None:
    path = lock.write(definition(url, ["numpy>=1"], subdirectory="lib"), beside)
    tree = lock.fetch_locked(definition(url, ["numpy>=1"], subdirectory="lib"), beside)
    assert yaml.safe_load(path.read_text()) == {
        "version": 1,
        "source": url,
        "subdirectory": "lib",
        "commit": repository.head(),
        "tree_sha256": tree_sha256(tree.root),
        "requirements": ["numpy>=1"],
    }


def test_a_ref_that_moved_does_not_load(url: str, repository: Repository, beside: Path) -> None:
    lock.write(definition(url), beside)
    first = repository.head()
    second = repository.commit({"model.py": "x = 2"})
    with pytest.raises(SourceError) as caught:
        lock.fetch_locked(definition(url), beside)
    assert f'"main" moved: function.lock has commit {first}, got {second}' in str(caught.value)
    assert str(caught.value).endswith(RENEW)
    lock.write(definition(url), beside)
    assert lock.fetch_locked(definition(url), beside).provenance.commit == second


def test_a_ref_that_is_gone_does_not_load(url: str, repository: Repository, beside: Path) -> None:
    lock.write(definition(url), beside)
    repository.run("branch", "--move", "main", "other")
    with pytest.raises(SourceError, match=f'no ref "main" in the repository.*{RENEW}'):
        lock.fetch_locked(definition(url), beside)


def test_a_lock_and_a_warm_cache_start_offline(
    url: str, git_server: GitServer, beside: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lock.write(definition(url), beside)
    expected = lock.fetch_locked(definition(url), beside)
    git_server.close()
    assert lock.fetch_locked(definition(url), beside) == expected
    assert 'cannot check whether "main" still is commit' in caplog.text


def test_a_lock_and_a_pinned_commit_touch_no_network(
    url: str, git_server: GitServer, repository: Repository, beside: Path
) -> None:
    pinned = url.replace("#main", f"#{repository.head()}")
    lock.write(definition(pinned), beside)
    git_server.requests.clear()
    lock.fetch_locked(definition(pinned), beside)
    assert git_server.requests == []


def test_a_lock_of_another_commit_than_the_pinned_one_does_not_load(
    url: str, repository: Repository, beside: Path
) -> None:
    first = repository.head()
    second = repository.commit({"model.py": "x = 2"})
    function = definition(url.replace("#main", f"#{first}"))
    path = lock.write(function, beside)
    path.write_text(path.read_text().replace(f"commit: {first}", f"commit: {second}"))
    with pytest.raises(SourceError, match=f"has commit {second}, got {first}; {RENEW}"):
        lock.fetch_locked(function, beside)


def test_a_pinned_annotated_tag_loads_under_its_lock(
    url: str, repository: Repository, beside: Path
) -> None:
    repository.run("tag", "--annotate", "v1", "--message", "m")
    tag = repository.run("rev-parse", "v1")
    function = definition(url.replace("#main", f"#{tag}"))
    lock.write(function, beside)
    assert lock.fetch_locked(function, beside).provenance.commit == repository.head() != tag


def test_a_lock_on_a_cold_cache_fetches_the_locked_commit(
    url: str, repository: Repository, beside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock.write(definition(url), beside)
    monkeypatch.setenv("MLSERVER_PYFUNC_CACHE", str(tmp_path / "other"))
    assert lock.fetch_locked(definition(url), beside).provenance.commit == repository.head()


@pytest.mark.parametrize(
    ("changed", "cause"),
    [
        ({"source": "git+https://example.com/x#main"}, "has source"),
        ({"subdirectory": "lib"}, "has subdirectory None, got lib"),
        ({"requirements": ["numpy"]}, "has requirements"),
    ],
)
def test_a_definition_that_changed_does_not_load(
    changed: dict[str, str], cause: str, url: str, beside: Path
) -> None:
    lock.write(definition(url), beside)
    with pytest.raises(SourceError, match=f"{cause}.*{RENEW}"):
        lock.fetch_locked(definition(**{"source": url, **changed}), beside)  # type: ignore[arg-type]


def test_an_archive_that_changed_does_not_load(file_server: FileServer, beside: Path) -> None:
    file_server.files["/b.zip"] = BUNDLE
    function = definition(f"{file_server.url}/b.zip")
    lock.write(function, beside)
    file_server.requests.clear()
    assert lock.fetch_locked(function, beside).provenance.sha256 == sha256(BUNDLE)
    assert file_server.requests == [], "a locked archive in the cache needs no network"


def test_an_archive_that_changed_does_not_load_on_a_cold_cache(
    file_server: FileServer, beside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_server.files["/b.zip"] = BUNDLE
    function = definition(f"{file_server.url}/b.zip")
    lock.write(function, beside)
    file_server.files["/b.zip"] = zipped({"model.py": b"evil"})
    monkeypatch.setenv("MLSERVER_PYFUNC_CACHE", str(tmp_path / "other"))
    with pytest.raises(SourceError, match=f"expected sha256 {sha256(BUNDLE)}, got .*; {RENEW}"):
        lock.fetch_locked(function, beside)


@pytest.mark.parametrize("kind", ["folder", "file", "archive", "code"])
def test_local_code_that_changed_does_not_load(kind: str, beside: Path) -> None:
    (beside / "model.py").write_text("x = 1")
    (beside / "b.zip").write_bytes(BUNDLE)
    keys = {
        "folder": {"source": "."},
        "file": {"source": "model.py"},
        "archive": {"source": "b.zip"},
        "code": {"code": "x = 1"},
    }
    function = parse({"source": {"handler": "model:predict", **keys[kind]}})
    lock.write(function, beside)
    first = lock.fetch_locked(function, beside)
    assert first.provenance.sha256 or first.provenance.tree_sha256
    (beside / "model.py").write_text("x = 2")
    (beside / "b.zip").write_bytes(zipped({"model.py": b"x = 2"}))
    if kind == "code":
        function = parse({"source": {"handler": "model:predict", "code": "x = 2"}})
    with pytest.raises(SourceError, match=RENEW):
        lock.fetch_locked(function, beside)


@pytest.mark.parametrize("target", ["../outside", "../outside/model.py", "../outside/nothing"])
def test_a_link_that_leads_out_of_the_source_is_not_locked(target: str, tmp_path: Path) -> None:
    folder, outside = tmp_path / "function", tmp_path / "outside"
    for each in (folder, outside):
        each.mkdir()
        (each / "model.py").write_text("def predict(x):\n    return x\n")
    (folder / "loop").symlink_to("loop")
    (folder / "here").symlink_to(".")
    source = definition(".")
    lock.write(source, folder)
    lock.fetch_locked(source, folder)
    (folder / "link").symlink_to(target)
    for attempt in (lock.write, lock.fetch_locked):
        with pytest.raises(SourceError, match=f'link "{folder}/link" leads out of the source'):
            attempt(source, folder)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("{", "not YAML"),
        ("[]", "lock: expected a mapping"),
        ("version: 2\nsource: x", "version: expected 1"),
        ("source: x\ncommit: main", "commit: expected text that matches"),
        ("source: x\nevil: 1", "evil: expected no key of this name"),
    ],
)
def test_rejects_what_is_not_a_lock(text: str, cause: str, beside: Path) -> None:
    (beside / "function.lock").write_text(text)
    (beside / "model.py").write_text("x = 1")
    with pytest.raises(SourceError, match=cause):
        lock.fetch_locked(definition("model.py"), beside)


def test_says_that_the_folder_cannot_be_written_to(beside: Path) -> None:
    (beside / "model.py").write_text("x = 1")
    (beside / "function.lock").mkdir()
    with pytest.raises(SourceError, match=r"function.lock: cannot be written: is a directory|Is a"):
        lock.write(definition("model.py"), beside)


def test_the_digest_is_what_standard_tools_compute(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    for name in ("model.py", "a b/ü.txt", "a.py", "a/z.py", "-", "Z.py", "back\\slash"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    for ignored in ("__pycache__/x.pyc", "a/__pycache__/x.pyc", ".git/config"):
        (root / ignored).parent.mkdir(parents=True, exist_ok=True)
        (root / ignored).write_text("ignored")
    (root / "function.lock").write_text("ignored")
    recipe = (
        r"find . \( -name __pycache__ -o -name .git \) -prune -o -type f ! -path ./function.lock"
        r" -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum --zero -- | sha256sum"
    )
    done = subprocess.run(
        ["sh", "-c", recipe], cwd=root, capture_output=True, text=True, check=True
    )
    assert tree_sha256(root) == done.stdout.split()[0]


def test_the_digest_tells_a_link_from_a_file_with_its_target(tmp_path: Path) -> None:
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "a").symlink_to("b")
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "a").write_text("b")
    line = hashlib.sha256(b"b").hexdigest().encode() + b" @./a\0"
    assert tree_sha256(tmp_path / "link") == hashlib.sha256(line).hexdigest()
    assert tree_sha256(tmp_path / "file") != tree_sha256(tmp_path / "link")


def test_the_documented_recipes_give_the_digest(repository: Repository, tmp_path: Path) -> None:
    page = (DOCS / "sources.md").read_text()
    section = page.partition("### The digest of a tree")[2]
    shell = section.partition("```sh\n")[2].partition("```")[0]
    program = section.partition("```python\n")[2].partition("```")[0]
    repository.commit({"model.py": "x", "a b/ü.txt": "y", "__pycache__/m.pyc": "z", "a/-": "w"})
    root = repository.folder
    expected = tree_sha256(root)
    done = subprocess.run(["sh", "-c", shell], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == expected
    (root / "alias.py").symlink_to("model.py")
    (root / "folder").symlink_to("a b")
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == tree_sha256(root) != expected
