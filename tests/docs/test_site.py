"""The documentation site: built strictly, spelt well, and read in a real browser."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from tests.client.playground.test_browser import Page
from tests.places import DOCS, ROOT

CONFIG = DOCS / "site" / "mkdocs.yml"
BIN = Path(sys.executable).parent
ENV = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    run("mkdocs", "build", "--strict", "--quiet", "--config-file", CONFIG, "--site-dir", folder)
    return folder


@pytest.fixture
def url(site: Path) -> Iterator[str]:
    with serving(site) as address:
        yield address


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def run(program: str, *arguments: object, folder: Path = ROOT) -> str:
    command = [str(BIN / program), *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=ENV, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def pages(site: Path) -> list[Path]:
    return [path for path in sorted(site.rglob("*.html")) if path.name != "404.html"]


def test_the_words_are_spelt_as_in_a_dictionary() -> None:
    texts = re.search(r"^texts := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert texts
    paths = [path for pattern in texts[1].split() for path in ROOT.glob(pattern)]
    run("codespell", *paths)


def test_every_document_is_in_the_navigation() -> None:
    found = re.findall(r"[\w./-]+\.md", yaml.safe_dump(yaml.safe_load(CONFIG.read_text())["nav"]))
    documents = [
        *DOCS.glob("*.md"),
        *(DOCS / "guides").glob("*.md"),
        *(ROOT / "examples").rglob("README.md"),
    ]
    assert {path.relative_to(ROOT).as_posix() for path in documents} <= set(found)
    assert len(found) == len(set(found))


def test_each_page_takes_everything_from_the_site_itself(site: Path) -> None:
    assert len(pages(site)) > 50
    for page in pages(site):
        text = page.read_text()
        assert not re.findall(r'<(?:script|img|iframe)[^>]* src="?(?:https?:)?//[^>]*', text), page
        links = re.findall(r'<link rel="?(?:stylesheet|icon|preconnect)"? [^>]*', text)
        assert not [link for link in links if "//" in link], page


def test_lists_and_tables_are_rendered(site: Path) -> None:
    for page in pages(site):
        text = re.sub(r"<(pre|code).*?</\1>", "", page.read_text(), flags=re.DOTALL)
        for paragraph in re.findall(r"<p>(.*?)</p>", text, re.DOTALL):
            assert not re.search(r"^(?:- |\| |\d\. |```)", paragraph, re.MULTILINE), (
                f"{page.name}: {paragraph[:200]}"
            )


def test_links_to_files_that_are_no_pages_lead_to_the_repository(site: Path) -> None:
    text = (site / "examples" / "tabular" / "index.html").read_text()
    assert "/blob/main/examples/tabular/function.yaml" in text
    assert 'href="../../docs/batching.html"' in (site / "examples/batching/index.html").read_text()


def test_the_reference_has_the_public_names_with_their_docstrings(site: Path) -> None:
    text = (site / "docs" / "api.html").read_text()
    for name in ("Function", "connect", "Tensor", "InferenceError"):
        assert re.search(rf'id="?mlserver_pyfunc\.[\w.]*\b{name}"?', text), name


@pytest.mark.parametrize("width", WIDTHS)
def test_pages_fit_the_window_and_ask_no_other_host(browser, url: str, width: str) -> None:
    for name in ("index", "docs/why", "docs/cli", "examples/picture/index", "docs/guides/pytorch"):
        page = Page(browser, "about:blank")
        page.resize(*WIDTHS[width])
        page = Page(browser, f"{url}/{name}.html")
        assert page.find("h1").is_displayed()
        inner, outer = browser.execute_script(
            "return [document.documentElement.scrollWidth, window.innerWidth]"
        )
        assert inner <= outer, f"{name}: {inner} of {outer} points wide"
        assert all(
            browser.execute_script("return arguments[0].naturalWidth", image)
            for image in page.all("article img")
        )
        page.shot(f"site-{name.replace('/', '-')}-{width}")
        page.assert_clean()


@pytest.mark.parametrize("width", WIDTHS)
def test_the_search_finds_a_word(browser, url: str, width: str) -> None:
    page = Page(browser, "about:blank")
    page.resize(*WIDTHS[width])
    find(Page(browser, f"{url}/index.html"), width)


def test_the_search_works_on_pages_that_are_opened_as_files(browser, site: Path) -> None:
    page = Page(browser, "about:blank")
    page.resize(*WIDTHS["desktop"])
    find(Page(browser, (site / "index.html").as_uri()), "desktop")


def find(page: Page, width: str) -> None:
    if width == "phone":
        page.find('header label[for="__search"]').click()
    page.wait(lambda: page.find(".md-search__input").is_displayed())
    page.find(".md-search__input").send_keys("exclusive_minimum")
    page.wait(lambda: page.all(".md-search-result__item a"))
    links = [link.get_attribute("href") for link in page.all(".md-search-result__item a")]
    assert any("docs/definition.html" in link for link in links), links
    page.shot(f"site-search-{width}")
    page.assert_clean()


def test_versions_stand_beside_each_other(browser, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    git = functools.partial(subprocess.run, cwd=repository, check=True, capture_output=True)
    repository.mkdir()
    git(["git", "init", "-q", "-b", "main"])
    for key, value in (("user.name", "a"), ("user.email", "a@example.org")):
        git(["git", "config", key, value])
    git(["git", "commit", "-q", "--allow-empty", "-m", "first"])
    for version in ("0.1", "0.2"):
        options = ("--config-file", CONFIG, "--update-aliases", version, "latest")
        run("mike", "deploy", *options, folder=repository)
    git(["git", "worktree", "add", "-q", tmp_path / "pages", "gh-pages"])
    with serving(tmp_path / "pages") as url:
        page = Page(browser, "about:blank")
        page.resize(*WIDTHS["desktop"])
        page = Page(browser, f"{url}/latest/index.html")
        page.wait(lambda: page.all(".md-version"))
        versions = [link.get_attribute("textContent").strip() for link in page.all(".md-version a")]
        assert versions == ["0.2", "0.1"]
        page.assert_clean()
