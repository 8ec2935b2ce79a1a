"""Parts of the playground's script by themselves: what it reads and what it draws."""

from __future__ import annotations

import base64
import json
import random
from importlib.resources import files

import pytest

from .conftest import HERE

PARTS = files("mlserver_pyfunc.client.playground")
MARKDOWN = ("dom", "markdown")


@pytest.fixture
def run(browser):
    """Runs JavaScript on a page that has some parts of the script and no policy."""

    def run(parts, code, *arguments):
        browser.get("about:blank")
        script = "\n".join((PARTS / f"{part}.js").read_text() for part in parts)
        done = "const done = arguments[arguments.length - 1];"
        body = f"(async () => {{ {code} }})().then(done, (error) => done(String(error)));"
        return browser.execute_async_script(f"{done}\n{script}\n{body}", *arguments)

    return run


def test_an_empty_field_of_a_nullable_tensor_is_null(run):
    code = """
      const field = elementField({ datatype: "BOOL", nullable: true }, "flag");
      return [
        element({ datatype: "BYTES", nullable: true }, ""),
        element({ datatype: "BYTES" }, ""),
        element({ datatype: "INT64", nullable: true }, " "),
        element({ datatype: "BOOL", nullable: true }, ""),
        plainText("null"),
        [...field.options].map((option) => option.value),
      ];
    """
    choices = ["true", "false", ""]
    assert run(["dom", "inputs"], code) == ["null", '""', "null", "null", "", choices]


def read_parquet(run, content):
    code = """
      const bytes = Uint8Array.from(atob(arguments_[0]), (c) => c.charCodeAt(0));
      return await readParquet(bytes.buffer);
    """
    text = base64.b64encode(content).decode()
    return run(["parquet", "zstd"], f"const arguments_ = {json.dumps([text])};{code}")


@pytest.mark.parametrize("name", ["snappy", "gzip", "zstd", "encodings", "groups"])
def test_parquet_is_read_as_writers_write_it(run, name):
    expected = json.loads((HERE / "files" / "table.json").read_text())
    assert read_parquet(run, (HERE / "files" / f"{name}.parquet").read_bytes()) == expected


def test_a_packing_that_browsers_lack_is_named(run):
    said = read_parquet(run, (HERE / "files" / "lz4.parquet").read_bytes())
    assert "does not unpack LZ4: write the file with Snappy, gzip or zstd" in said


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"PAR1" + b"\xff" * 20 + b"PAR1"])
def test_what_is_no_parquet_is_an_error(run, content):
    assert read_parquet(run, content).startswith("Error: it")


def test_broken_parquet_is_an_error_or_other_values_but_never_hangs(run, browser):
    browser.set_script_timeout(60)
    source = random.Random(0)
    for number in range(60):
        whole = (HERE / "files" / f"{('snappy', 'zstd')[number % 2]}.parquet").read_bytes()
        broken = bytearray(whole)
        for _ in range(3):
            broken[source.randrange(4, len(broken) - 8)] = source.randrange(256)
        read_parquet(run, bytes(broken))


def drawn(run, text):
    return run(MARKDOWN, f"return markdown({json.dumps(text)}).innerHTML")


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("plain\ntext", "<p>plain\ntext</p>"),
        ("one\n\ntwo", "<p>one</p><p>two</p>"),
        ("# Title #", '<p class="heading">Title</p>'),
        (
            "**b** *e* `c` ~~s~~",
            "<p><strong>b</strong> <em>e</em> <code>c</code> <s>s</s></p>",
        ),
        ("2 * 3 * 4 and a_b_c", "<p>2 * 3 * 4 and a_b_c</p>"),
        ("\\*no\\* `a\\b`", "<p>*no* <code>a\\b</code></p>"),
        ("- a\n- b", "<ul><li>a</li><li>b</li></ul>"),
        ("1. a\n2. b\n   - c", "<ol><li>a</li><li>b<ul><li>c</li></ul></li></ol>"),
        ("3) a", '<ol start="3"><li>a</li></ol>'),
        ("- a\n\n- b\n\nend", "<ul><li>a</li><li>b</li></ul><p>end</p>"),
        ("- a\n- b\n\n\n- c", "<ul><li>a</li><li>b</li></ul><ul><li>c</li></ul>"),
        ("> a\n> b\n\nc", "<blockquote><p>a\nb</p></blockquote><p>c</p>"),
        ("```py\n<b>\n```\nend", '<pre tabindex="0">&lt;b&gt;</pre><p>end</p>'),
        ("```\nstill open", '<pre tabindex="0">still open</pre>'),
        ("---", "<hr>"),
        (
            "[a](https://b.c/d) https://e.f/g.",
            '<p><a href="https://b.c/d" rel="noopener noreferrer" target="_blank">a</a> '
            '<a href="https://e.f/g" rel="noopener noreferrer" target="_blank">'
            "https://e.f/g</a>.</p>",
        ),
    ],
)
def test_markdown_is_drawn(run, text, html):
    assert drawn(run, text) == html


def test_a_table_of_markdown_is_drawn(run):
    html = drawn(run, "| a | **b** |\n|---|--:|\n| 1 | x\\|y |\n| 2 |\n\nend")
    assert '<th scope="col">a</th><th scope="col"><strong>b</strong></th>' in html
    assert '<td class="text">1</td><td class="text">x|y</td>' in html
    assert html.endswith("<p>end</p>")


@pytest.mark.parametrize(
    "address",
    [
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        "java\tscript:alert(1)",
        "data:text/html,<b>",
        "vbscript:x",
        "//other.host/",
        "https:javascript:alert(1)",
        "/v2/repository/models/iris/unload",
    ],
)
def test_only_web_addresses_are_links(run, address):
    assert "<a " not in drawn(run, f"[a]({address}) ![b]({address})")


PIECES = [
    "<script>x</script>", "<img src=x onerror=x>", "[a](", "javascript:x", "https://a.b/'onclick=x",
    ")", "](", "[", "]", "`", "``", "```", "~~~", "~~", "**", "*", "_", "|", "|---|", "\n",
    "\n\n", "  ", "- ", "1. ", "> ", "# ", "\\", "&lt;", "<!--", "\u202e", "\0", "a", "---", '"',
]  # fmt: skip


def test_no_text_of_markdown_becomes_another_element_or_attribute(run):
    source = random.Random(1)
    texts = ["".join(source.choices(PIECES, k=source.randrange(1, 40))) for _ in range(400)]
    texts += [">" * 5000, "- " * 5000, "  " * 5000 + "- a", "*" * 5000, "`" * 5001, "[" * 5000]
    code = f"""
      const allowed = new Map(Object.entries({{
        P: ["class"], STRONG: [], EM: [], S: [], CODE: [], PRE: ["tabindex"], UL: [],
        OL: ["start"], LI: [], BLOCKQUOTE: [], HR: [], A: ["href", "rel", "target"],
        TABLE: ["class"], THEAD: [], TBODY: [], TR: [], TH: ["scope"], TD: ["class"],
        DIV: ["class", "tabindex", "role", "aria-label"],
      }}));
      const wrong = [];
      for (const text of {json.dumps(texts)}) {{
        for (const element of markdown(text).querySelectorAll("*")) {{
          const names = [...element.attributes].map(({{ name }}) => name);
          const isLink = element.tagName !== "A" || /^https?:/.test(element.protocol);
          if (!isLink || !names.every((name) => allowed.get(element.tagName)?.includes(name))) {{
            wrong.push([text, element.outerHTML]);
          }}
        }}
      }}
      return wrong;
    """
    assert run(MARKDOWN, code) == []


def test_long_markdown_is_drawn_at_once(run):
    """Nothing of it takes time that grows with the square of the text's length."""
    text = "A **bold** word, a [link](https://a.b/) and `code`.\n- point\n" * 4000
    hard = "**a" * 20000 + "\n" + "[a](" * 20000 + "\n" + "~~a" * 20000 + "\n" + "``a" * 20000
    code = f"""
      const started = performance.now();
      for (const text of {json.dumps([text, hard])}) markdown(text);
      return performance.now() - started;
    """
    assert run(MARKDOWN, code) < 20000
