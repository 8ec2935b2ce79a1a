"""Git sources, from real repositories over HTTPS and files."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mlserver_pyfunc.definition import SourceDefinition
from mlserver_pyfunc.errors import SourceError
from mlserver_pyfunc.sources import SourceTree, fetch

from .servers import CutServer, FileServer, GitServer, Repository, reply

HERE = Path(".")


def fetched(uri: str, **keys: str) -> SourceTree:
    return fetch(SourceDefinition(source=uri, handler="model:predict", **keys), HERE)


def files(tree: SourceTree) -> dict[str, str]:
    return {
        str(path.relative_to(tree.root)): path.read_text()
        for path in sorted(tree.root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def url(git_server: GitServer) -> str:
    return f"git+{git_server.url}/repository"


@pytest.fixture
def first(repository: Repository) -> str:
    return repository.commit({"model.py": "x = 1", "lib/a.py": "a", "other/b.py": "b"})


@pytest.fixture
def second(repository: Repository, first: str) -> str:
    return repository.commit({"model.py": "x = 2"})


def test_gives_the_default_branch_without_git_files(url: str, second: str) -> None:
    tree = fetched(url)
    assert files(tree) == {"lib/a.py": "a", "model.py": "x = 2", "other/b.py": "b"}
    assert tree.provenance.commit == second
    assert tree.provenance.source == url
    assert tree.provenance.tree_sha256


@pytest.mark.parametrize("kind", ["branch", "annotated", "lightweight", "full", "refs"])
@pytest.mark.parametrize("server", ["new", "old"])
def test_gives_every_kind_of_ref(
    kind: str, server: str, url: str, git_server: GitServer, repository: Repository, first: str
) -> None:
    git_server.protocol_2 = server == "new"
    repository.config("uploadpack.allowFilter", "true" if server == "new" else "false")
    repository.run("tag", "light")
    repository.run("tag", "--annotate", "heavy", "--message", "m")
    repository.run("branch", "feature/one")
    repository.commit({"model.py": "x = 2"})
    ref = {
        "branch": "feature/one",
        "annotated": "heavy",
        "lightweight": "light",
        "full": first,
        "refs": "refs/tags/heavy",
    }[kind]
    tree = fetched(f"{url}#{ref}")
    assert tree.provenance.commit == first
    assert files(tree)["model.py"] == "x = 1"


@pytest.mark.parametrize("filters", ["true", "false"])
@pytest.mark.parametrize("server", ["new", "old"])
def test_gives_only_the_subdirectory(
    filters: str, server: str, url: str, git_server: GitServer, repository: Repository, second: str
) -> None:
    git_server.protocol_2 = server == "new"
    repository.config("uploadpack.allowFilter", filters)
    tree = fetched(url, subdirectory="lib")
    assert files(tree) == {"a.py": "a"}
    assert tree.provenance.commit == second


def test_a_pinned_and_warm_commit_touches_no_network(
    url: str, git_server: GitServer, second: str
) -> None:
    root = fetched(f"{url}#{second}").root
    git_server.requests.clear()
    assert fetched(f"{url}#{second}").root == root
    assert git_server.requests == []


def test_an_abbreviated_commit_is_to_be_written_in_full(url: str, second: str) -> None:
    with pytest.raises(SourceError, match="write all 40 digits of a commit"):
        fetched(f"{url}#{second[:9]}")


def test_a_branch_that_did_not_move_is_not_fetched_again(
    url: str, git_server: GitServer, second: str
) -> None:
    fetched(f"{url}#main")
    before = len([path for _, path, headers in git_server.requests])
    fetched(f"{url}#main")
    assert len(git_server.requests) - before == 2


def test_a_branch_that_moved_gives_the_new_commit(
    url: str, repository: Repository, second: str
) -> None:
    fetched(f"{url}#main")
    third = repository.commit({"model.py": "x = 3"})
    tree = fetched(f"{url}#main")
    assert (tree.provenance.commit, files(tree)["model.py"]) == (third, "x = 3")


def test_a_moving_ref_offline_is_a_clear_error(
    url: str, git_server: GitServer, second: str
) -> None:
    fetched(f"{url}#main")
    git_server.close()
    with pytest.raises(SourceError, match="the connection was refused; git says"):
        fetched(f"{url}#main")
    assert fetched(f"{url}#{second}").provenance.commit == second


def test_names_the_nearest_refs_of_one_that_is_missing(
    url: str, repository: Repository, second: str
) -> None:
    repository.run("branch", "release-1.2")
    repository.run("tag", "v1")
    with pytest.raises(SourceError, match=r'no ref "release-1.3" .*nearest: "release-1.2"'):
        fetched(f"{url}#release-1.3")


def test_rejects_a_name_that_is_a_branch_and_another_commit_s_tag(
    url: str, repository: Repository, first: str
) -> None:
    repository.run("tag", "stable")
    repository.run("branch", "stable")
    assert fetched(f"{url}#stable").provenance.commit == first
    repository.run("checkout", "--quiet", "refs/heads/stable")
    repository.commit({"model.py": "x = 9"})
    repository.run("branch", "--force", "stable", "HEAD")
    with pytest.raises(SourceError, match="ambiguous: write one of refs/heads/stable or refs/tags"):
        fetched(f"{url}#stable")


def test_rejects_a_commit_that_is_not_there(url: str, second: str) -> None:
    with pytest.raises(SourceError, match=f"commit {'0' * 39}1 is not in the repository"):
        fetched(f"{url}#{'0' * 39}1")


def test_rejects_an_empty_repository(url: str) -> None:
    with pytest.raises(SourceError, match="no default branch"):
        fetched(url)
    with pytest.raises(SourceError, match="the repository is empty"):
        fetched(f"{url}#main")


def test_gives_a_commit_of_a_server_that_speaks_no_git(
    repository: Repository, secure_file_server: FileServer, first: str, second: str
) -> None:
    repository.run("repack", "-a", "-d", "-q")
    repository.run("update-server-info")
    for path in (repository.folder / ".git").rglob("*"):
        if path.is_file():
            name = "/r.git/" + str(path.relative_to(repository.folder / ".git"))
            secure_file_server.files[name] = path.read_bytes()
    tree = fetched(f"git+{secure_file_server.url}/r.git#{first}")
    assert files(tree)["model.py"] == "x = 1"


def test_gives_a_repository_on_this_machine(repository: Repository, second: str) -> None:
    tree = fetched(f"git+file://{repository.folder}#main")
    assert (tree.provenance.commit, files(tree)["model.py"]) == (second, "x = 2")


def test_never_runs_hooks_or_filters_of_the_repository(
    repository: Repository, url: str, tmp_path: Path
) -> None:
    repository.commit(
        {
            ".gitattributes": "*.txt filter=evil export-subst\n*.py text eol=crlf ident\n",
            "secret.txt": "$Format:%H$",
            "model.py": "# $Id$\n",
        }
    )
    marker = tmp_path / "ran"
    config = tmp_path / "home" / ".gitconfig"
    config.write_text(
        f'[filter "evil"]\n\tsmudge = touch {marker}\n[core]\n\thooksPath = {tmp_path}\n'
    )
    for name in ("post-checkout", "reference-transaction", "post-merge"):
        hook = tmp_path / name
        hook.write_text(f"#!/bin/sh\ntouch {marker}\n")
        hook.chmod(0o755)
    got = files(fetched(url))
    assert (got["secret.txt"], got["model.py"]) == ("$Format:%H$", "# $Id$\n")
    assert not marker.exists()


def test_says_plainly_that_submodules_are_not_fetched(
    repository: Repository, url: str, first: str
) -> None:
    repository.run("update-index", "--add", "--cacheinfo", f"160000,{first},vendor/lib")
    repository.run("commit", "--quiet", "--message", "submodule")
    with pytest.raises(SourceError, match='"vendor/lib" is a submodule: submodules are not'):
        fetched(url)
    assert files(fetched(url, subdirectory="lib")) == {"a.py": "a"}


def test_says_plainly_that_lfs_is_not_fetched(repository: Repository, url: str) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    repository.commit({"weights.bin": pointer})
    with pytest.raises(SourceError, match=r'"weights.bin" is a Git LFS pointer'):
        fetched(url)


def test_keeps_links_inside_the_repository(repository: Repository, url: str, first: str) -> None:
    (repository.folder / "alias.py").symlink_to("lib/a.py")
    repository.commit({})
    tree = fetched(url)
    assert (tree.root / "alias.py").is_symlink()
    assert (tree.root / "alias.py").read_text() == "a"


@pytest.mark.parametrize("target", ["/etc/passwd", "../../outside", "lib/../../x", "up/up/../x"])
def test_rejects_links_that_lead_outside(
    target: str, repository: Repository, url: str, first: str
) -> None:
    (repository.folder / "up").symlink_to(".")
    (repository.folder / "deep").mkdir()
    (repository.folder / "deep" / "evil").symlink_to(
        target if target.startswith(("/", "..")) else f"../{target}/../.."
    )
    repository.commit({})
    with pytest.raises(SourceError, match="is a link that leads outside, to"):
        fetched(url)


@pytest.mark.parametrize(
    ("subdirectory", "cause"),
    [
        ("nope", 'subdirectory "nope" is not in the repository'),
        ("lib/a.py", '"lib/a.py" is not a folder'),
        ("../x", 'leads outside by ".."'),
        ("/etc", "expected a relative path, got an absolute one"),
        ("link", '"link" is a symbolic link'),
        ("link/etc", '"link" is a symbolic link'),
    ],
)
def test_rejects_a_subdirectory_that_is_absent_or_outside(
    subdirectory: str, cause: str, repository: Repository, url: str, first: str
) -> None:
    (repository.folder / "link").symlink_to("/")
    repository.commit({})
    with pytest.raises(SourceError, match=cause):
        fetched(url, subdirectory=subdirectory)


@pytest.mark.parametrize(
    ("uri", "cause"),
    [
        ("git+https://example.com/x#--upload-pack=touch", 'begins with "-"'),
        ("git+https://example.com/x#a\nb", "has a control character"),
        ("git+https://example.com/x#a%0ab", "is not a branch, a tag or a commit"),
        ("git+https://example.com/x#a..b", "is not a branch, a tag or a commit"),
        ("git+ssh://-oProxyCommand=touch/x", 'its host or user begins with "-"'),
        ("git+ssh://a@-oProxyCommand=touch/x", 'its host or user begins with "-"'),
        ("git+ssh://host/-x", 'its path begins with "-"'),
        ("git+https:///x", "has no host"),
        ("git+file://host/x", 'expected git+file:///path, got host "host"'),
        ("ext::sh -c touch% /tmp/x", "transports of the form"),
        ("git+ext://sh -c touch", 'unknown scheme "git+ext"'),
        ("git://example.com/x", 'unknown scheme "git"'),
        ("git+http://example.com/x", 'unknown scheme "git+http"'),
        ("--upload-pack=x", 'begins with "-"'),
    ],
)
def test_rejects_hostile_urls_and_refs(uri: str, cause: str) -> None:
    with pytest.raises(SourceError) as caught:
        fetched(uri)
    assert cause in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rejects_a_sha256(url: str, first: str) -> None:
    with pytest.raises(SourceError, match="sha256 is for a file or an archive, got git"):
        fetched(url, sha256="0" * 64)


@pytest.mark.parametrize(
    ("status", "cause"),
    [(403, "access forbidden"), (404, "no such repository"), (401, "authentication")],
)
def test_names_the_cause_of_a_refusal(
    status: int, cause: str, url: str, git_server: GitServer, first: str, cache_folder: Path
) -> None:
    def refuse(request: object) -> bool:
        reply(request, status, b"no", {"WWW-Authenticate": "Basic"} if status == 401 else {})  # type: ignore[arg-type]
        return True

    git_server.before = refuse  # type: ignore[assignment]
    with pytest.raises(SourceError, match=rf"{cause}.*\({status}\)"):
        fetched(url)
    assert len(git_server.requests) == 1
    assert not list(cache_folder.glob("t*/*"))


def test_tries_again_after_a_failure_that_passes(
    url: str, git_server: GitServer, first: str
) -> None:
    def fail_at_first(request: object) -> bool:
        if len(git_server.requests) > 1:
            return False
        reply(request, 503, b"busy")  # type: ignore[arg-type]
        return True

    git_server.before = fail_at_first  # type: ignore[assignment]
    assert fetched(url).provenance.commit == first


@pytest.mark.parametrize("after", [0, 1000, 100_000])
@pytest.mark.parametrize("cuts", [1, float("inf")], ids=["once", "always"])
@pytest.mark.parametrize("subdirectory", ["", "lib"])
def test_a_fetch_that_breaks_off_is_whole_or_an_error(
    subdirectory: str,
    cuts: float,
    after: int,
    git_server: GitServer,
    repository: Repository,
    cache_folder: Path,
) -> None:
    noise = random.Random(1).randbytes(200_000).hex()
    commit = repository.commit({"lib/noise.txt": noise})
    repository.config("uploadpack.allowFilter", "true")
    keys = {"subdirectory": subdirectory} if subdirectory else {}
    path = "noise.txt" if subdirectory else "lib/noise.txt"
    with CutServer(git_server.port, cuts, after) as server:
        uri = f"git+https://127.0.0.1:{server.port}/repository#{commit}"
        if cuts > 1:
            with pytest.raises(SourceError, match=r'the connection broke; git says "(error|fatal)'):
                fetched(uri, **keys)
            assert not [*cache_folder.glob("trees/*"), *cache_folder.glob("tmp/*")]
            assert not list(cache_folder.glob("index/*"))
            server.cuts = 0
        assert files(fetched(uri, **keys)) == {path: noise}
        assert server.cuts == 0, "the connection was not cut"


def test_rejects_a_certificate_that_is_not_trusted(
    url: str, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(SourceError, match="the TLS connection failed"):
        fetched(url)


def test_does_not_follow_a_redirect_from_https_to_http(
    url: str, git_server: GitServer, repository: Repository, first: str
) -> None:
    plain = GitServer(repository.folder.parent, None)

    def redirect(request: object) -> bool:
        reply(request, 301, b"", {"Location": plain.url + request.path})  # type: ignore[arg-type, attr-defined]
        return True

    git_server.before = redirect  # type: ignore[assignment]
    with pytest.raises(SourceError, match="redirects"):
        fetched(url)
    assert plain.requests == []
    plain.close()


def test_stops_at_the_time_limit(
    url: str, git_server: GitServer, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLSERVER_PYFUNC_FETCH_TIMEOUT", "1")
    ended = threading.Event()
    git_server.before = lambda request: ended.wait(3600)
    with pytest.raises(SourceError, match="expected to be fetched in 1 s, gave up"):
        fetched(url)
    ended.set()


def test_stops_at_the_size_limit(
    url: str, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit({"big.txt": "x" * 200_000})
    monkeypatch.setenv("MLSERVER_PYFUNC_MAX_SOURCE_SIZE", "100K")
    with pytest.raises(SourceError, match="expected at most 102400 bytes in all, got more"):
        fetched(url)


def test_is_not_led_astray_by_the_environment(
    url: str, first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(tmp_path / "objects"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    monkeypatch.setenv("GIT_TRACE_CURL", str(tmp_path / "trace"))
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", "'url.file:///x.insteadof=https://'")
    assert fetched(url).provenance.commit == first
    assert not os.path.exists(tmp_path / "trace")


def test_says_that_git_is_not_installed(repository: Repository, first: str) -> None:
    program = str(Path(__file__).with_name("fetch_once.py"))
    done = subprocess.run(
        [sys.executable, program, f"git+file://{repository.folder}"],
        env={**os.environ, "PATH": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.splitlines()[-1].startswith('SourceError: source "git+file://')
    assert "the git program is not installed" in done.stderr.splitlines()[-1]
