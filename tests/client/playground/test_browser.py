"""The playground in a real browser: every kind of input, every view of an answer."""

from __future__ import annotations

import importlib.util
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from .conftest import ARTIFACTS

pytestmark = pytest.mark.server

FIGURES = """
  const [page] = performance.getEntriesByType("navigation");
  const others = performance.getEntriesByType("resource");
  const sum = (key) => others.reduce((total, each) => total + each[key], page[key]);
  const paint = performance.getEntriesByName("first-contentful-paint")[0];
  return {
    requests: 1 + others.length,
    compressed: sum("encodedBodySize"),
    plain: sum("decodedBodySize"),
    painted: paint ? paint.startTime : null,
    interactive: page.domContentLoadedEventEnd,
    complete: page.loadEventEnd,
  };
"""


class Page:
    """The playground of one model, as a user works it."""

    def __init__(self, browser, url):
        self.browser = browser
        self.host = urlsplit(url).netloc
        for kind in ("browser", "performance"):
            browser.get_log(kind)
        browser.get(url)

    @classmethod
    def opened(cls, browser, url):
        """The page, when its model is ready, without the values of the test before."""
        browser.execute_script("try { sessionStorage.clear() } catch { /* no page */ }")
        page = cls(browser, url)
        page.resize(1280, 1000)
        page.scheme("light")
        page.wait(lambda: page.text("#ready") == "ready")
        return page

    def find(self, selector):
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector):
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def named(self, label):
        return self.find(f'[aria-label="{label}"]')

    def fill(self, label, text):
        field = self.named(label)
        field.clear()
        field.send_keys(text)

    def call(self):
        self.browser.execute_script("document.getElementById('timing').textContent = ''")
        self.find("#call").click()
        self.wait(lambda: self.text("#timing") or self.find("#error").is_displayed())

    def wait(self, condition, seconds=60):
        WebDriverWait(self.browser, seconds, 0.05).until(lambda _: condition())

    def text(self, selector):
        return self.find(selector).text

    def output(self, name):
        return next(box for box in self.all(".output") if box.text.startswith(f"{name} "))

    def tab(self, name, title):
        tabs = self.output(name).find_elements(By.CSS_SELECTOR, "[role=tab]")
        next(tab for tab in tabs if tab.text == title).click()

    def shot(self, name):
        ARTIFACTS.mkdir(exist_ok=True)
        self.browser.execute_script("window.scrollTo(0, 0)")
        self.browser.save_screenshot(str(ARTIFACTS / f"{name}.png"))

    def resize(self, width, height):
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def scheme(self, name):
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def figures(self):
        """What it took to show the page: bytes, and milliseconds since it was asked for."""
        self.wait(lambda: self.browser.execute_script("return document.readyState") == "complete")
        return self.browser.execute_script(FIGURES)

    def assert_clean(self, *, errors=0):
        """No other host was asked, and the console shows failed calls alone."""
        hosts = set()
        for entry in self.browser.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                url = urlsplit(message["params"]["request"]["url"])
                hosts.add(url.netloc if url.scheme.startswith("http") else self.host)
        assert hosts <= {self.host}
        said = self.browser.get_log("browser")
        unexpected = [entry for entry in said if "Failed to load resource" not in entry["message"]]
        assert unexpected == []
        assert len(said) == errors, said


@pytest.fixture
def page(browser, server):
    def open_page(model, url=None):
        opened = Page(browser, f"{url or server.url}/v2/models/{model}/playground")
        opened.resize(1280, 1000)
        opened.scheme("light")
        opened.wait(lambda: opened.text("#ready") != "checking")
        return opened

    return open_page


@pytest.fixture
def picture(tmp_path):
    image = Image.new("RGB", (32, 24), (200, 60, 40))
    image.paste((30, 90, 200), (0, 0, 16, 12))
    image.save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def test_a_table_of_numbers_is_filled_in_and_answered(page):
    iris = page("iris")
    assert iris.text("#ready") == "ready"
    for column, value in enumerate(["5.1", "3.5", "1.4", "0.2"]):
        iris.fill(f"features, row 0, column {column}", value)
    next(b for b in iris.all("button") if b.text == "Add row").click()
    for column, value in enumerate(["6.2", "3.4", "5.4", "2.3"]):
        iris.fill(f"features, row 1, column {column}", value)
    iris.call()
    assert "setosa" in iris.output("species").text
    assert "virginica" in iris.output("species").text
    iris.tab("probabilities", "Bars")
    assert len(iris.all("svg.chart rect")) == 6
    iris.tab("probabilities", "JSON")
    assert '"datatype": "FP32"' in iris.output("probabilities").text
    iris.tab("probabilities", "Bars")
    iris.find("#repeat").click()
    iris.wait(lambda: "100 calls, median" in iris.text("#latency-summary"), 60)
    assert iris.all("#latency-chart path")
    iris.shot("iris-desktop")
    iris.assert_clean()


def test_the_form_starts_with_the_declared_examples(page):
    table = page("table")
    assert [cell.text for cell in table.all("table.grid th")][:3] == ["width", "height", "depth"]
    assert table.named("cells, row 1, column 2").get_attribute("value") == "6"
    assert table.named("notes").get_attribute("value") == "one\ntwo"
    table.call()
    assert "16.25" in table.output("total").text
    assert "9007199254740993" in table.output("ids").text
    table.assert_clean()


def test_errors_are_the_servers_words(page):
    iris = page("iris")
    iris.fill("features, row 0, column 0", "tall")
    iris.call()
    assert 'input "features" of model "iris": expected numbers' in iris.text("#error")
    assert "'tall' at index 0 (status 400)" in iris.text("#error")
    iris.shot("iris-error")
    wrong = iris.named("features, row 0, column 0")
    assert wrong.get_attribute("aria-invalid") == "true"
    assert iris.named("features, row 0, column 1").get_attribute("aria-invalid") is None
    assert "expected numbers" in iris.text(f"#{wrong.get_attribute('aria-describedby')}")
    iris.fill("features, row 0, column 0", "1")
    iris.call()
    assert not iris.find("#error").is_displayed()
    assert wrong.get_attribute("aria-invalid") is None
    iris.assert_clean(errors=1)


def test_a_csv_file_fills_the_columns_by_their_names(page, tmp_path):
    table = page("table")
    heads = [cell.text for cell in table.all("table.grid th")][:4]
    assert heads == ["width", "height", "depth", "ids"]
    (tmp_path / "rows.csv").write_text(
        'ids,depth,"width",height\n7,3,1,2\n9007199254740995,6,4,5\n'
    )
    table.named("cells from a file").send_keys(str(tmp_path / "rows.csv"))
    table.wait(lambda: table.named("ids, row 1, column 0").get_attribute("value") != "2")
    row = [table.named(f"cells, row 1, column {c}").get_attribute("value") for c in range(3)]
    assert row == ["4", "5", "6"]
    table.named("notes").send_keys(Keys.CONTROL, Keys.ENTER)
    table.wait(lambda: table.text("#timing"))
    assert "9007199254740995" in table.output("ids").text
    table.assert_clean()


def test_values_last_over_a_reload_and_travel_by_a_link(page, browser):
    iris = page("iris")
    for column in range(4):
        iris.fill(f"features, row 0, column {column}", f"{column}.5")
    iris.find("#id, h1").click()
    iris.wait(lambda: "3.5" in iris.text("#snippets pre"))
    browser.refresh()
    iris.wait(lambda: iris.all("#call"))
    first = iris.named("features, row 0, column 3")
    assert first.get_attribute("value") == "3.5"
    iris.find("#share").click()
    iris.wait(lambda: "#request=" in browser.current_url)
    link = browser.current_url
    browser.execute_script("sessionStorage.clear()")
    browser.get("about:blank")
    browser.get(link)
    iris.wait(lambda: iris.all("#call"))
    assert iris.named("features, row 0, column 3").get_attribute("value") == "3.5"


def test_calls_are_listed_and_two_are_compared(page):
    iris = page("iris")
    for value in ("1", "7"):
        iris.fill("features, row 0, column 0", value)
        iris.call()
    boxes = iris.all("#calls input")
    assert len(boxes) == 2
    boxes[0].click()
    iris.all("#calls input")[1].click()
    assert len(iris.all("#compared pre")) == 2
    iris.all("#calls button")[1].click()
    assert iris.named("features, row 0, column 0").get_attribute("value") == "1"


def test_markup_in_names_and_answers_stays_text(page):
    story = page("story")
    story.fill("topic", "<img src=x onerror=alert(1)><script>alert(1)</script>")
    story.call()
    assert "<img src=x onerror=alert(1)>" in story.text(".stream")
    assert not story.all("#answer img, #calls img, #snippets img")
    story.assert_clean()


def fill_gallery(gallery, picture):
    for label in ("picture from a file", "frame from a file"):
        gallery.named(label).send_keys(str(picture))
    gallery.wait(lambda: gallery.named("frame, size of axis 1").get_attribute("value") == "32")
    gallery.wait(lambda: "bytes" in gallery.named("picture").get_attribute("value"))
    gallery.named("flags").clear()
    gallery.named("flags").send_keys("true, false, true")
    gallery.fill("id, row 0, column 0", "9223372036854775807")
    for row in range(2):
        for column in range(3):
            gallery.fill(f"weights, row {row}, column {column}", str(row * 3 + column))


def test_files_pictures_flags_big_integers_and_optional_inputs(page, picture):
    gallery = page("gallery")
    fill_gallery(gallery, picture)
    gallery.call()
    assert not gallery.find("#error").is_displayed(), gallery.text("#error")
    assert gallery.output("size").text.split()[-2:] == ["32", "24"] or "24" in gallery.text(
        "#answer"
    )
    thumbnail = gallery.output("thumbnail").find_element(By.TAG_NAME, "img")
    gallery.wait(lambda: int(thumbnail.get_property("naturalWidth")) == 32)
    canvas = gallery.output("frame").find_element(By.TAG_NAME, "canvas")
    pixel = "return [...arguments[0].getContext('2d').getImageData(0, 23, 1, 1).data]"
    assert gallery.browser.execute_script(pixel, canvas) == [30, 90, 200, 255]
    assert "9223372036854775807" in gallery.output("id").text
    assert gallery.output("flags").text.split()[-1] == "false"
    gallery.tab("wave", "Line")
    assert gallery.output("wave").find_elements(By.CSS_SELECTOR, "svg path")
    gallery.tab("weights", "Bars")
    assert "[200]" in gallery.output("wave").text
    gallery.shot("gallery-desktop")
    gallery.find("fieldset input[type=checkbox]").click()
    gallery.fill("steps, row 0, column 0", "5")
    gallery.call()
    assert "[5]" in gallery.output("wave").text
    gallery.assert_clean()


def test_a_stream_is_shown_as_it_comes(page):
    story = page("story")
    story.fill("topic", "tensor")
    story.find("#call").click()
    story.wait(lambda: story.all(".stream"))
    early = story.text(".stream")
    assert story.text("#call") == "Stop"
    story.wait(lambda: "first item after" in story.text("#timing"))
    whole = "Once upon a time there was a tensor that could compute"
    assert story.text(".stream") == whole
    assert len(early) < len(whole), "the items came all at once"
    story.shot("story-stream")
    story.fill("topic", "nothing")
    story.call()
    assert "there is no story about nothing" in story.text("#error")
    story.fill("topic", "pause")
    story.find("#call").click()
    story.wait(lambda: story.all(".stream"))
    story.find("#call").click()
    story.wait(lambda: "stopped after" in story.text("#timing"))
    assert story.text("#call") == "Call"
    story.assert_clean(errors=1)


def test_the_calls_on_show_work_as_they_stand(page, tmp_path):
    import subprocess
    import sys

    iris = page("iris")
    for column in range(4):
        iris.fill(f"features, row 0, column {column}", "1.5")
    iris.call()
    expected = iris.output("species").text.split()[-1]
    tabs = {tab.text: tab for tab in iris.all("#snippets [role=tab]")}
    assert list(tabs) == ["curl", "Python", "tritonclient", "kserve"]
    names = ["curl", "Python", "tritonclient"]
    if importlib.util.find_spec("kserve"):
        names.append("kserve")
    for name in names:
        tab = next(t for t in iris.all("#snippets [role=tab]") if t.text == name)
        tab.click()
        text = iris.find("#snippets pre").text
        command = ["sh", "-c", text] if name == "curl" else [sys.executable, "-c", text]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
        assert expected in done.stdout, name


def test_the_keyboard_alone_is_enough(page):
    iris = page("iris")
    iris.named("features, row 0, column 0").send_keys(Keys.ENTER)
    iris.wait(lambda: iris.text("#timing"))
    tab = iris.output("probabilities").find_element(By.CSS_SELECTOR, "[role=tab]")
    tab.send_keys(Keys.ARROW_RIGHT)
    focused = iris.browser.switch_to.active_element
    assert (focused.text, focused.get_attribute("aria-selected")) == ("Bars", "true")


@pytest.mark.parametrize("width", [360, 390, 768])
def test_a_phone_shows_all_of_it_without_scrolling_sideways(page, picture, width):
    gallery = page("gallery")
    gallery.resize(width, 800)
    fill_gallery(gallery, picture)
    gallery.call()
    assert gallery.browser.execute_script("return document.documentElement.scrollWidth") <= width
    answer, contract = gallery.find("#answer-title"), gallery.find("#contract-title")
    assert answer.location["y"] < contract.location["y"]
    gallery.shot(f"gallery-{width}")


def test_dark_mode_is_dark(page):
    iris = page("iris")
    iris.scheme("dark")
    iris.call()
    iris.tab("probabilities", "Bars")
    color = "return getComputedStyle(document.body).backgroundColor"
    assert iris.browser.execute_script(color) == "rgb(16, 20, 27)"
    iris.shot("iris-dark")
    iris.assert_clean()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("model", ["iris", "gallery", "story"])
def test_axe_finds_no_barrier(page, axe, model, scheme, picture):
    opened = page(model)
    opened.scheme(scheme)
    if model == "gallery":
        fill_gallery(opened, picture)
    opened.call()
    assert_accessible(opened, axe)


def test_the_list_of_models(browser, server, axe):
    page = Page(browser, f"{server.url}/v2/playground")
    names = [link.text for link in page.all(".title a")]
    assert names == ["gallery", "iris", "story", "table"]
    assert_accessible(page, axe)
    page.shot("list")
    page.find(".title a").click()
    page.wait(lambda: page.all("#call"))
    assert page.text("#version") == "version 1"
    page.call()
    page.find(".crumb a").click()
    page.wait(lambda: page.all(".models"))
    page.assert_clean(errors=1)


@pytest.mark.parametrize("path", ["models/iris/docs", "docs", "models/gallery/versions/1/docs"])
def test_the_api_document_is_shown_without_another_host(browser, server, path):
    docs = Page(browser, f"{server.url}/v2/{path}")
    docs.wait(lambda: docs.all(".opblock"))
    docs.shot(f"docs-{path.replace('/', '-')}")
    docs.assert_clean()
    if "iris" not in path:
        return
    docs.find(".opblock-summary-control").click()
    docs.wait(lambda: docs.all("button.execute"))
    docs.find("button.execute").click()
    docs.wait(lambda: docs.all(".live-responses-table .response-col_status"))
    docs.assert_clean(errors=len(docs.all(".response.error")))


def assert_accessible(page, axe):
    page.browser.execute_script(axe)
    run = "const done = arguments[0]; axe.run().then((r) => done(r.violations))"
    violations = page.browser.execute_async_script(run)
    told = [(v["id"], v["impact"], [n["target"] for n in v["nodes"]][:3]) for v in violations]
    assert told == []


def test_it_works_behind_a_path_prefix(page, server):
    with prefixed(server.url, "/gate/way") as url:
        iris = page("iris", url)
        iris.call()
        assert iris.output("species")
        assert f"{url}/v2/models/iris/infer" in iris.text("#snippets pre")
        iris.find(".crumb a").click()
        iris.wait(lambda: iris.all(".models a"))
        assert iris.browser.current_url == f"{url}/v2/playground"
        iris.all(".models .title a")[1].click()
        iris.wait(lambda: iris.all("#call"))
        iris.find("#metadata-link").click()
        iris.wait(lambda: '"platform"' in iris.browser.page_source)


class prefixed:  # noqa: N801
    """A proxy that serves another server below a path, as an ingress does."""

    def __init__(self, target, prefix):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.forward(None)

            def do_POST(self):
                self.forward(self.rfile.read(int(self.headers["content-length"])))

            def forward(self, body):
                if not self.path.startswith(prefix):
                    self.send_error(404)
                    return
                headers = {"Content-Type": self.headers.get("content-type", "text/plain")}
                request = Request(target + self.path.removeprefix(prefix), body, headers)
                with urlopen(request) as response:
                    answer = response.read()
                    self.send_response(response.status)
                    for name, value in response.headers.items():
                        if name.lower() not in ("transfer-encoding", "connection"):
                            self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(answer)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}{prefix}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self.url

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def test_a_model_that_goes_away_is_said_to_be_not_ready(page, server):
    iris = page("iris")
    url = f"{server.url}/v2/repository/models/iris"
    urlopen(Request(f"{url}/unload", b"", method="POST")).read()
    try:
        iris.call()
        assert 'model "iris" not found' in iris.text("#error")
        iris.wait(lambda: iris.text("#ready") == "not ready")
    finally:
        urlopen(Request(f"{url}/load", b"", method="POST")).read()
        time.sleep(0.1)
