"""Models whose every text is markup: the playground shows them as they are, and nothing runs."""

from __future__ import annotations

import ast
import shlex
from base64 import b64encode
from urllib.parse import quote

import pytest
import yaml

from mlserver_pyfunc.testing import Server

from .test_browser import Page

pytestmark = [pytest.mark.server, pytest.mark.heavy]

RUN = "document.title='run'"
MARKUP = (
    f"""</script></style></textarea><script>{RUN}</script><img src=x onerror="{RUN}">"""
    f"""<svg onload="{RUN}"><a href="javascript:{RUN}">a</a><b id=call class=hostile>b</b>"""
    """<!--<script> ${'$'}{{ 7*7 }} &lt;b&gt; \\u003cb\\u003e '"`'''\\"""
)
NAME = """m"><b>'&lt;`${1}"""
VERSION = """1"><b>'"""
NAMES = [MARKUP, "__proto__", "constructor", "@big@5", "\u202egnp.exe"]
"""Names of tensors. Some are names of every JavaScript object, one is read from right to left."""

HANDLER = f"""
from mlserver_pyfunc import InferenceError

MARKUP = {MARKUP!r}


def answer(inputs):
    if bytes(inputs[MARKUP][0]) == b"fail":
        raise InferenceError(MARKUP)
    texts = [MARKUP, "@big@5", "javascript:alert(1)", "__proto__"]
    return {{MARKUP: texts, "__proto__": inputs["__proto__"], "constructor": [MARKUP.encode()]}}


def items(inputs):
    for _ in range(3):
        yield answer(inputs)
"""


def definition(name, handler):
    return {
        "model_name": name,
        "model_version": VERSION,
        "description": MARKUP,
        "source": {"source": "model.py", "handler": handler},
        "inputs": [
            {"name": NAMES[0], "datatype": "BYTES", "shape": [1], "example": [MARKUP]},
            {"name": NAMES[1], "datatype": "FP32", "shape": [2], "labels": [MARKUP, "b"]},
            {"name": NAMES[2], "datatype": "BOOL", "shape": [-1], "optional": True},
            {"name": NAMES[3], "datatype": "INT64", "shape": [-1, 2, 2], "optional": True},
            {"name": NAMES[4], "datatype": "INT8", "shape": [], "optional": True},
        ],
        "outputs": [
            {"name": MARKUP, "datatype": "BYTES", "shape": [-1], "description": MARKUP},
            {"name": "__proto__", "datatype": "FP32", "shape": [-1]},
            {"name": "constructor", "datatype": "BYTES", "shape": [-1]},
        ],
    }


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    models = tmp_path_factory.mktemp("hostile")
    for name, handler in ((NAME, "answer"), (NAME + "s", "items")):
        folder = models / handler
        folder.mkdir()
        (folder / "model.py").write_text(HANDLER)
        text = yaml.safe_dump(definition(name, handler), allow_unicode=True)
        (folder / "function.yaml").write_text(text)
        settings = '{"implementation": "mlserver_pyfunc.PyFuncRuntime"}'
        (folder / "model-settings.json").write_text(settings)
    with Server(models, env={"MLSERVER_DEBUG": "false"}) as server:
        yield server


def opened(browser, server, name, fragment=""):
    # Without the values of the test before.
    browser.execute_script("try { sessionStorage.clear() } catch { /* no page */ }")
    url = f"{server.url}/v2/models/{quote(name, safe='')}/playground"
    page = Page(browser, f"{url}{fragment}")
    page.resize(1280, 1000)
    page.wait(lambda: page.text("#ready") == "ready")
    return page


def labelled(page, label):
    """The field of a label that no CSS selector can name."""
    return next(each for each in page.all("textarea") if each.get_attribute("aria-label") == label)


def assert_no_elements(page):
    """No text of markup has become an element or was run."""
    assert page.browser.title != "run"
    assert page.all(".hostile, [onload], a[href^=javascript], img:not([src^=data])") == []


def assert_harmless(page):
    """No text has become an element, and none was run or refused to be run."""
    assert_no_elements(page)
    assert len(page.all("script")) == 2
    assert [each.tag_name for each in page.all("[id=call]")] == ["button"]
    polluted = "return Object.keys({}).length + [].concat(Object.keys(Object.prototype)).length"
    assert page.browser.execute_script(polluted) == 0


def test_a_model_of_markup_is_shown_as_it_is(browser, hostile):
    page = opened(browser, hostile, NAME)
    assert page.browser.title == f"{NAME} · playground"
    assert page.text("h1").startswith(NAME)
    assert page.text("#version") == f"version {VERSION}"
    contract = [row.get_attribute("textContent") for row in page.all("#contract th[scope=row]")]
    assert contract == [*NAMES, MARKUP, "__proto__", "constructor"]
    assert labelled(page, MARKUP).get_attribute("value") == MARKUP
    heads = [cell.get_attribute("textContent") for cell in page.all(".grid th")]
    assert MARKUP in heads
    for box in page.all("input[type=checkbox]"):
        box.click()
    page.find("#randomise").click()
    page.call()
    assert page.find("#error").is_displayed() is False, page.text("#error")
    outputs = [box.get_attribute("textContent") for box in page.all("#answer .output")]
    assert len(outputs) == 3
    assert MARKUP in outputs[0]
    assert MARKUP in outputs[2]
    assert_harmless(page)
    page.assert_clean()


def test_a_text_is_not_shown_as_a_number(browser, hostile):
    page = opened(browser, hostile, NAME)
    page.call()
    whole = page.find("#answer details pre").get_attribute("textContent")
    assert '"@big@5"' in whole


def test_an_error_of_markup_is_shown_as_it_is(browser, hostile):
    page = opened(browser, hostile, NAME)
    area = labelled(page, MARKUP)
    area.clear()
    area.send_keys("fail")
    page.call()
    shown = page.find("#error").get_attribute("textContent")
    assert shown.startswith(MARKUP[:80])
    assert_harmless(page)
    page.assert_clean(errors=1)


def test_compared_calls_of_markup_are_shown_as_they_are(browser, hostile):
    page = opened(browser, hostile, NAME)
    page.call()
    labelled(page, MARKUP).send_keys("<i class=hostile>")
    page.call()
    for number in range(2):
        page.all("#calls input")[number].click()
    shown = [each.get_attribute("textContent") for each in page.all("#compared pre")]
    assert len(shown) == 2
    assert all("<script>" in text for text in shown)
    assert any("<i class=hostile>" in mark.text for mark in page.all("#compared mark"))
    assert_harmless(page)
    page.assert_clean()


def test_a_file_of_markup_is_named_as_it_is(browser, hostile):
    page = opened(browser, hostile, NAME)
    name = f"<img src=x onerror={RUN}>.png"
    drop_file = """
      const [target, name] = arguments;
      const dataTransfer = new DataTransfer();
      dataTransfer.items.add(new File(["<svg onload=alert(1)>"], name, { type: "text/html" }));
      target.dispatchEvent(new DragEvent("drop", { bubbles: true, dataTransfer }));
    """
    area = labelled(page, MARKUP)
    browser.execute_script(drop_file, area, name)
    page.wait(lambda: name in area.get_attribute("value"))
    page.call()
    assert page.find("#error").is_displayed() is False, page.text("#error")
    assert_harmless(page)
    page.assert_clean()


@pytest.mark.parametrize("text", [MARKUP, '{"inputs": ' + MARKUP, "null", "[]"])
def test_a_link_of_markup_is_an_error(browser, hostile, text):
    opened(browser, hostile, NAME)
    link = b64encode(text.encode()).decode()
    browser.get("about:blank")
    page = opened(browser, hostile, NAME, f"#request={link}")
    assert "the link holds no request" in page.text("#error")
    assert_harmless(page)
    page.call()
    assert page.find("#error").is_displayed() is False, page.text("#error")
    page.assert_clean()


def test_a_stream_of_markup_is_shown_as_it_is(browser, hostile):
    page = opened(browser, hostile, NAME + "s")
    page.call()
    assert page.find("#error").is_displayed() is False, page.text("#error")
    assert len(page.all("#answer .output")) == 9
    assert_harmless(page)
    page.assert_clean()


@pytest.mark.parametrize(
    "path", ["docs", "models/{name}/docs", "models/{name}/versions/{version}/docs"]
)
def test_the_api_document_of_markup_is_shown_as_it_is(browser, hostile, path):
    names = {"name": quote(NAME, safe=""), "version": quote(VERSION, safe="")}
    docs = Page(browser, f"{hostile.url}/v2/{path.format(**names)}")
    docs.wait(lambda: docs.all(".opblock"))
    assert docs.find("#viewer .title").text.startswith(NAME)
    links = [link.text for link in docs.all("header a")]
    assert links == ["All models", f"{NAME} {VERSION}", f"{NAME}s {VERSION}"]
    for selector in (".opblock-summary-control", ".json-schema-2020-12-expand-deep-button"):
        for control in docs.all(selector):
            browser.execute_script("arguments[0].click()", control)
        docs.wait(lambda: docs.all("button.execute"))
    shown = docs.find("#viewer").get_attribute("textContent")
    assert f"Axis 0: {MARKUP}, b" in shown
    docs.find("button.execute").click()
    docs.wait(lambda: docs.all(".live-responses-table .response-col_status"))
    docs.shot("docs-hostile")
    assert_no_elements(docs)
    assert docs.all("[id=call]") == []
    docs.assert_clean()
    docs.all("header a")[1].click()
    docs.wait(lambda: docs.all(".opblock"))
    assert docs.find("#viewer .title").text.startswith(NAME)


def test_the_start_page_leads_to_the_list(browser, hostile):
    page = Page(browser, f"{hostile.url}/")
    page.wait(lambda: page.all(".models a"))
    assert [link.text for link in page.all(".models a")] == [NAME, NAME + "s"]
    assert page.all("b, script") == []


def test_the_list_shows_names_of_markup_as_they_are(browser, hostile):
    page = Page(browser, f"{hostile.url}/v2/playground")
    assert [link.text for link in page.all(".models a")] == [NAME, NAME + "s"]
    assert page.all("b, script") == []
    page.find(".models a").click()
    page.wait(lambda: page.all("#call"))
    assert page.text("h1").startswith(NAME)
    page.assert_clean()


def test_the_calls_on_show_have_no_code_of_the_model(browser, hostile):
    page = opened(browser, hostile, NAME)
    snippets = {}
    for title in ("curl", "Python", "tritonclient", "kserve"):
        tabs = page.all("#snippets [role=tab]")
        next(tab for tab in tabs if tab.text == title).click()
        snippets[title] = page.find("#snippets pre").get_attribute("textContent")
    command = shlex.split(snippets["curl"].replace("\\\n", " "))
    assert command[:2] == ["curl", "-s"]
    assert command[3::2] == ["-H", "-d"]
    for title in ("Python", "tritonclient", "kserve"):
        tree = ast.parse(snippets[title])
        texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        assert title == "Python" or {NAME, MARKUP, "__proto__"} <= texts
    assert_harmless(page)
