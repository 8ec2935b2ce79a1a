"""Controls of forms in a real browser: choices, switches, sliders, files, devices."""

from __future__ import annotations

import base64
import json
from urllib.parse import urlsplit

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from .conftest import HERE
from .test_browser import Page

pytestmark = [pytest.mark.server, pytest.mark.heavy]


@pytest.fixture
def page(browser, forms):
    def open_page(model):
        return Page.opened(browser, f"{forms.url}/v2/models/{model}/playground")

    return open_page


def drop(page, field, name, content, kind=""):
    """Drops a file on the field of an input, as a hand does."""
    script = """
      const [target, name, content, kind] = arguments;
      const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
      const dataTransfer = new DataTransfer();
      dataTransfer.items.add(new File([bytes], name, { type: kind }));
      const options = { bubbles: true, cancelable: true, dataTransfer };
      for (const event of ["dragover", "drop"]) target.dispatchEvent(new DragEvent(event, options));
    """
    page.browser.execute_script(
        script, page.named(field), name, base64.b64encode(content).decode(), kind
    )


def body(page):
    """The request that the page would send, from the call by curl on show."""
    text = page.find("#snippets pre").get_attribute("textContent")
    return json.loads(text.split("-d '", 1)[1].rsplit("'", 1)[0].replace("'\\''", "'"))


def sent(page):
    return {tensor["name"]: tensor for tensor in body(page)["inputs"]}


def value(page, label):
    return page.named(label).get_attribute("value")


def test_choices_switches_and_sliders_are_what_annotations_say(page):
    coffee = page("coffee")
    kind = Select(coffee.named("kind, row 0, column 0"))
    assert [option.text for option in kind.options] == ["espresso", "filter", "mocha"]
    kind.select_by_visible_text("mocha")
    switch = coffee.named("to_go, row 0, column 0")
    assert switch.get_attribute("role") == "switch"
    if not switch.is_selected():
        switch.click()
    cups = coffee.named("cups, slider")
    assert [cups.get_attribute(name) for name in ("min", "max", "step")] == ["1", "12", "1"]
    cups.send_keys(Keys.HOME, Keys.ARROW_RIGHT)
    assert value(coffee, "cups, row 0, column 0") == "2"
    coffee.fill("sugar, row 0, column 0", "2")
    assert float(value(coffee, "sugar, slider")) == 2
    coffee.call()
    assert float(coffee.output("output").text.split()[-1]) == 2 * (3.5 + 0.2) + 0.25
    assert coffee.text(".description") == "Prices a coffee, <b>without</b> tax."
    assert "default 0" in coffee.text("#inputs")
    coffee.shot("coffee-desktop")
    coffee.assert_clean()


def test_an_optional_input_is_sent_once_it_is_filled_in(page):
    coffee = page("coffee")
    assert "tip" not in sent(coffee)
    coffee.named("tip, slider").send_keys(Keys.END)
    coffee.wait(lambda: sent(coffee).get("tip", {}).get("data") == [5])
    coffee.find("fieldset .tools label input").click()
    coffee.wait(lambda: "tip" not in sent(coffee))


def test_what_the_limits_forbid_is_marked_with_the_servers_words(page):
    coffee = page("coffee")
    coffee.fill("cups, row 0, column 0", "13")
    coffee.call()
    assert "12" in coffee.text(".fault:not([hidden])")
    assert coffee.named("cups, row 0, column 0").get_attribute("aria-invalid") == "true"
    coffee.assert_clean(errors=1)


ROWS = b'''note,amount,country,is_paid,id,more
"a, ""b""",1.5,IT,true,9007199254740993,x
<b>c</b>,,FR,no,2,y
'''


def test_a_csv_file_fills_the_whole_request(page):
    rows = page("rows")
    drop(rows, "id, row 0, column 0", "rows.csv", ROWS)
    rows.wait(lambda: rows.all('[aria-label="note, row 1, column 0"]'))
    inputs = sent(rows)
    text = rows.find("#snippets pre").get_attribute("textContent")
    assert '"data": [9007199254740993, 2]' in text
    assert inputs["amount"]["data"] == [1.5, None]
    assert inputs["is_paid"]["data"] == [True, False]
    assert inputs["country"]["data"] == ["IT", "FR"]
    assert inputs["note"]["data"] == ['a, "b"', "<b>c</b>"]
    rows.call()
    assert rows.output("count").text.split()[-1] == "2"
    assert rows.output("paid").text.split()[-1] == "1.5"
    rows.shot("rows-desktop")
    rows.assert_clean()


def test_a_parquet_file_fills_a_table(page):
    table = page("table")
    drop(table, "ids, row 0, column 0", "rows.parquet", (HERE / "files/rows.parquet").read_bytes())
    table.wait(lambda: table.all('[aria-label="cells, row 2, column 0"]'))
    inputs = sent(table)
    assert inputs["cells"] == {
        "name": "cells", "datatype": "FP32", "shape": [3, 3],
        "data": [1.5, 10, 0.1, 2.5, 20, 0.2, 3.5, 30, 0.3],
    }  # fmt: skip
    assert '"data": [9007199254740993, 2, 3]' in table.find("#snippets pre").get_attribute(
        "textContent"
    )
    table.call()
    assert "9007199254740993" in table.output("ids").text
    table.assert_clean()


def test_a_file_that_does_not_fit_says_why(page):
    rows = page("rows")
    before = body(rows)
    for name, content, words in [
        ("a.csv", b"left,right\n1,2\n", "expected the columns id, amount, is_paid, country, note"),
        ("<b>x</b>.parquet", b"PAR1 no", '"<b>x</b>.parquet" cannot be read: it is no Parquet'),
        ("c.csv", b"", "it has no rows"),
    ]:
        drop(rows, "id, row 0, column 0", name, content)
        rows.wait(lambda words=words: words in rows.text("#error"))
    assert body(rows) == before
    rows.assert_clean()


def test_a_long_table_is_sent_whole(page):
    table = page("table")
    lines = "".join(f"{i},1,2,3\n" for i in range(5000))
    drop(table, "ids, row 0, column 0", "long.csv", f"ids,width,height,depth\n{lines}".encode())
    table.wait(lambda: "4,800 more rows are sent" in table.text("#inputs"))
    assert len(table.find("table.grid tbody").find_elements(By.TAG_NAME, "tr")) == 200
    table.call()
    assert table.find("#error").is_displayed() is False, table.text("#error")
    assert "[5000]" in table.output("ids").text
    next(b for b in table.all("button") if b.text == "Leave them out").click()
    table.call()
    assert "[200]" in table.output("ids").text
    table.assert_clean()


def test_lines_are_rows_and_an_element_of_two_lines_stays_one(page, browser):
    words = page("table")
    words.fill("notes", "one\ntwo\nthree")
    words.find("h1").click()
    words.wait(lambda: sent(words)["notes"]["shape"] == [3])
    request = body(words)
    request["inputs"][2]["shape"] = [2]
    request["inputs"][2]["data"] = ["two\nlines", "x"]
    link = base64.urlsafe_b64encode(json.dumps(request).encode()).decode().rstrip("=")
    url = browser.current_url.partition("#")[0]
    browser.get("about:blank")
    browser.get(f"{url}#request={link}")
    words.wait(lambda: words.all("#call"))
    assert sent(words)["notes"]["data"] == ["two\nlines", "x"]


def take_picture(page):
    """Takes a picture by the camera, as a hand does."""
    next(b for b in page.all("button") if b.text == "Camera").click()
    page.wait(lambda: page.all("video"))
    take = next(b for b in page.all("button") if b.text == "Take picture")
    page.wait(take.is_enabled)
    take.click()


def test_the_camera_takes_a_picture(page):
    image = page("image")
    take_picture(image)
    image.wait(lambda: "camera.png" in value(image, "image"))
    assert not image.all("video")
    image.wait(lambda: image.find(".preview img").get_property("naturalWidth"))
    image.call()
    assert image.find("#error").is_displayed() is False, image.text("#error")
    assert image.output("pixels").find_elements(By.TAG_NAME, "canvas")
    image.shot("image-camera")
    image.assert_clean()


def test_the_camera_fills_pixels_and_labels_name_the_answer(page):
    colours = page("colours")
    take_picture(colours)
    colours.wait(lambda: colours.all(".preview canvas"))
    colours.call()
    assert colours.find("#error").is_displayed() is False, colours.text("#error")
    levels = [float(cell.text) for cell in colours.output("mean").find_elements(By.TAG_NAME, "td")]
    assert len(levels) == 3
    assert 0 < max(levels) <= 1
    heads = [cell.text for cell in colours.output("mean").find_elements(By.TAG_NAME, "th")]
    assert heads == ["red", "green", "blue"]
    colours.tab("mean", "Bars")
    texts = colours.output("mean").find_elements(By.CSS_SELECTOR, "svg text")
    assert [each.text for each in texts][-3:] == ["red", "green", "blue"]
    colours.shot("colours-desktop")
    colours.assert_clean()


def test_the_microphone_records_a_wav_file(page):
    sound = page("sound")
    record = next(b for b in sound.all("button") if b.text == "Record")
    record.click()
    sound.wait(lambda: record.text == "Stop recording")
    sound.browser.execute_async_script("setTimeout(arguments[0], 600)")
    record.click()
    sound.wait(lambda: "recording.wav" in value(sound, "recording"))
    assert sound.all(".preview audio")
    sound.call()
    assert sound.find("#error").is_displayed() is False, sound.text("#error")
    assert float(sound.output("seconds").text.split()[-1]) > 0.1
    assert sound.output("again").find_elements(By.TAG_NAME, "audio")
    sound.shot("sound-desktop")
    sound.assert_clean()


def test_without_permission_the_camera_says_so(page):
    image = page("image")
    image.browser.execute_script(
        "navigator.mediaDevices.getUserMedia = () => Promise.reject(new Error('<b>no</b>'))"
    )
    next(b for b in image.all("button") if b.text == "Camera").click()
    image.wait(lambda: "the camera cannot be used: <b>no</b>" in image.text("#error"))
    image.assert_clean()


def test_where_the_browser_has_no_devices_there_are_no_buttons(page, browser):
    hide = "Object.defineProperty(Navigator.prototype, 'mediaDevices', { get: () => undefined })"
    told = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": hide})
    try:
        image = page("image")
        assert not [b for b in image.all("button") if b.text in ("Camera", "Record")]
        image.assert_clean()
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", told)


def test_a_text_file_is_dropped_on_a_text(page):
    chat = page("chat")
    drop(chat, "topic", "topic.txt", "naïve".encode())
    chat.wait(lambda: sent(chat)["topic"]["data"] == ["naïve"])
    drop(chat, "topic", "topic.txt", b"\xff\xfe")
    chat.wait(lambda: '"topic.txt" cannot be read' in chat.text("#error"))


def test_a_stream_of_markdown_is_drawn_and_stays_harmless(page):
    chat = page("chat")
    chat.fill("topic", "<b class=hostile>x</b>")
    chat.call()
    chat.wait(lambda: "bare" in chat.text("#answer"))
    assert chat.text("#answer .heading") == "About <b class=hostile>x</b>"
    assert chat.text("#answer strong") == "bold"
    assert chat.text("#answer ol > li") == "one"
    assert chat.text("#answer ul strong") == "point"
    assert [cell.text for cell in chat.all("#answer td")] == ["a|b", "1"]
    links = [link.get_attribute("href") for link in chat.all("#answer a")]
    assert [urlsplit(link).scheme for link in links] == ["https", "https", "https"]
    assert {link.get_attribute("rel") for link in chat.all("#answer a")} == {"noopener noreferrer"}
    assert "[bad](javascript:document.title='run')" in chat.text("#answer")
    assert not chat.all("#answer img, #answer script, .hostile, [onerror]")
    assert chat.browser.title == "chat · playground"
    chat.shot("chat-desktop")
    chat.assert_clean()


def test_two_calls_are_compared_line_by_line(page):
    coffee = page("coffee")
    for kind in ("mocha", "filter"):
        Select(coffee.named("kind, row 0, column 0")).select_by_visible_text(kind)
        coffee.call()
    for number in range(2):
        coffee.all("#calls input")[number].click()
    marks = [mark.get_attribute("textContent") for mark in coffee.all("#compared mark")]
    assert any("mocha" in mark for mark in marks)
    assert any("filter" in mark for mark in marks)
    assert not any('"to_go"' in mark for mark in marks)
    coffee.call()
    coffee.all("#calls input")[0].click()
    assert [box.is_selected() for box in coffee.all("#calls input")] == [True, True, False]
    coffee.shot("coffee-compared")
    coffee.assert_clean()
