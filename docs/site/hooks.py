"""Makes the site of the Markdown files of the repository, which link each other as on GitHub.

A link to a folder leads to its README. A link to a file that is no page leads to the repository.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pymdownx.slugs import slugify

import mlserver_pyfunc

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PAGES = (
    "*.md",
    "docs/**/*.md",
    "examples/**/README.md",
    "model-settings/README.md",
    "mlserver_pyfunc/validation/rules.md",
)
PICTURES = ("docs/**/*.png", "examples/**/*.png", "examples/**/*.jpg", "benchmarks/results/*.png")
LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    # Headings have the anchors that GitHub gives them.
    config.mdx_configs["toc"]["slugify"] = slugify(case="lower")
    # Of pages that are opened as files: the offline plugin would take it from another host.
    config.extra["polyfills"] = ["assets/iframe-worker.js"]
    if "MIKE_DOCS_VERSION" in os.environ:
        config.extra["version"] = {"provider": "mike"}
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Takes the files of the repository instead of those of the folder `docs`."""
    chosen = [file for file in files if file.src_dir != config.docs_dir]
    for pattern in (*PAGES, *PICTURES):
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            chosen.append(File.generated(config, name, abs_src_path=str(path)))
    script = "assets/iframe-worker.js"
    chosen.append(File.generated(config, script, abs_src_path=str(HERE / script)))
    chosen.append(File.generated(config, "docs/api.md", content=api()))
    return Files(chosen)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    folder = (ROOT / page.file.src_uri).parent
    if page.file.src_uri == "CHANGELOG.md":
        page.meta["search"] = {"boost": 0.1}  # it has a word of every page

    def link(match: re.Match[str]) -> str:
        before, target, after = match.groups()
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        path = (folder / target).resolve()
        if not path.exists() and target != "api.md":
            raise PluginError(f"{page.file.src_uri}: {target}: no such file")
        name = path.relative_to(ROOT).as_posix()
        if path.is_dir() and files.get_file_from_path(f"{name}/README.md"):
            return f"{before}{target.rstrip('/')}/README.md{after}"
        if files.get_file_from_path(name):
            return match[0]
        return f"{before}{config.extra['repository']}/blob/main/{name}{after}"

    return LINK.sub(link, markdown)


def api() -> str:
    """The page of the public names, each by the module that defines it."""
    parts = ["# API\n\nThe names that `mlserver_pyfunc` offers, from their docstrings.\n"]
    for name in sorted(dir(mlserver_pyfunc)):
        value: Any = getattr(mlserver_pyfunc, name)
        if not name.startswith("_") and callable(value):
            parts.append(f"\n::: {value.__module__}.{value.__qualname__}\n")
    return "".join(parts)
