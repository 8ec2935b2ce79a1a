"""Functions worked through in a real browser: filled in, sent, streamed, stopped, shared."""

from __future__ import annotations

import json

import pytest
from PIL import Image
from selenium.webdriver.support.ui import Select

from .conftest import SHOWN
from .test_browser import Page, assert_accessible
from .test_forms import ROWS, drop, sent

pytestmark = [pytest.mark.server, pytest.mark.heavy]
STREAMS = {"story", "chat", "text-stream"}
MAX_BYTES = 100_000


@pytest.fixture
def page(browser, forms):
    def open_page(model, fragment=""):
        return Page.opened(browser, f"{forms.url}/v2/models/{model}/playground{fragment}")

    return open_page


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "picture.png"
    Image.radial_gradient("L").resize((24, 16)).convert("RGB").save(path)
    return path


def fill_iris(page, _):
    for column, value in enumerate(("5.1", "3.5", "1.4", "0.2")):
        page.fill(f"features, row 0, column {column}", value)


def fill_coffee(page, _):
    Select(page.named("kind, row 0, column 0")).select_by_visible_text("mocha")


def fill_gallery(page, picture):
    for name in ("picture", "frame"):
        page.named(f"{name} from a file").send_keys(str(picture))
    page.wait(lambda: "bytes" in page.named("picture").get_attribute("value"))
    page.wait(lambda: page.all(".preview canvas"))


def fill_rows(page, _):
    drop(page, "id, row 0, column 0", "rows.csv", ROWS)
    page.wait(lambda: page.all('[aria-label="note, row 1, column 0"]'))


def text(label, value):
    return lambda page, _: page.fill(label, value)


def from_file(label):
    def fill(page, picture):
        page.named(f"{label} from a file").send_keys(str(picture))
        page.wait(lambda: page.all(".preview > *"))

    return fill


def record(page, _):
    button = next(b for b in page.all("button") if b.text == "Record")
    button.click()
    page.wait(lambda: button.text == "Stop recording")
    page.browser.execute_async_script("setTimeout(arguments[0], 300)")
    button.click()
    page.wait(lambda: page.all(".preview audio"))


def fill_flats(page, _):
    rows = b"area,rooms,district,balcony\n40.5,2,hills,true\n70,3,centre,false\n"
    drop(page, "rooms, row 0, column 0", "flats.csv", rows)
    page.wait(lambda: sent(page).get("balcony", {}).get("data") == [True, False])


WORK = {
    "tabular": (fill_flats, "per_square_metre"),
    "picture": (from_file("picture"), "output"),
    "batching": (lambda page, _: page.find("#randomise").click(), "rows_in_call"),
    "iris": (fill_iris, "setosa"),
    "image": (from_file("image"), "mean_colour"),
    "text-stream": (text("prompt", "the server"), "items"),
    "words": (text("text", "one two three"), "3"),
    "celsius": (text("fahrenheit", "212"), "100"),
    "coffee": (fill_coffee, "output"),
    "chat": (text("topic", "tensors"), "About tensors"),
    "sound": (record, "seconds"),
    "colours": (from_file("photo"), "mean"),
    "rows": (fill_rows, "9007199254740993"),
    "gallery": (fill_gallery, "thumbnail"),
    "table": (text("notes", "one\ntwo"), "16.25"),
    "story": (text("topic", "tensor"), "Once upon a time there was a tensor"),
}
"""How to fill in each form, and what the answer shows then."""


def test_every_function_on_show_is_worked_through():
    assert {folder.name for folder in SHOWN} == set(WORK)


@pytest.mark.parametrize("model", WORK)
def test_a_function_is_filled_in_sent_and_shared(page, axe, picture, browser, model):
    opened = page(model)
    assert opened.figures()["compressed"] < MAX_BYTES
    fill, expected = WORK[model]
    fill(opened, picture)
    opened.call()
    assert opened.find("#error").is_displayed() is False, opened.text("#error")
    opened.wait(lambda: expected in opened.text("#answer"))
    assert "ms" in opened.text("#calls")
    for scheme in ("light", "dark"):
        opened.scheme(scheme)
        assert_accessible(opened, axe)
    request = browser.execute_script("return sessionStorage.getItem(location.pathname)")
    opened.find("#share").click()
    opened.wait(lambda: "#request=" in browser.current_url or opened.text("#error"))
    if len(request) > 6000:
        assert "a link holds up to 6000" in opened.text("#error")
    else:
        fragment = "#" + browser.current_url.partition("#")[2]
        opened.assert_clean()
        browser.get("about:blank")
        opened = page(model, fragment)
        shared = browser.execute_script("return sessionStorage.getItem(location.pathname)")
        assert json.loads(shared) == json.loads(request)
    opened.assert_clean()


@pytest.mark.parametrize("model", ["story", "chat"])
def test_a_stream_is_stopped_midway(page, model):
    opened = page(model)
    opened.fill("topic", "pause")
    opened.find("#call").click()
    opened.wait(lambda: opened.text("#call") == "Stop" and "1 item" in opened.text("#answer"))
    opened.find("#call").click()
    opened.wait(lambda: "stopped after" in opened.text("#timing"))
    assert "stopped" in opened.text("#calls")
    assert sent(opened)["topic"]["data"] == ["pause"]
    opened.assert_clean()


@pytest.mark.parametrize("width", [360, 768])
@pytest.mark.parametrize("model", ["coffee", "rows", "chat", "image"])
def test_a_phone_shows_it_without_scrolling_sideways(page, picture, model, width):
    opened = page(model)
    opened.resize(width, 800)
    WORK[model][0](opened, picture)
    opened.call()
    assert opened.browser.execute_script("return document.documentElement.scrollWidth") <= width
    opened.assert_clean()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["docs", "models/coffee/docs", "models/chat/docs", "playground"])
def test_axe_finds_no_barrier_in_documents_and_lists(browser, forms, axe, path, scheme):
    docs = Page(browser, f"{forms.url}/v2/{path}")
    docs.resize(1280, 1000)
    docs.scheme(scheme)
    docs.wait(lambda: docs.all(".opblock, .models"))
    assert_accessible(docs, axe)
    for control in docs.all(".opblock-summary-control")[:3]:
        browser.execute_script("arguments[0].click()", control)
    assert_accessible(docs, axe)
    docs.assert_clean()
