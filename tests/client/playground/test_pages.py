"""The pages as HTTP gives them: whole in themselves, safe, and right about their model."""

import gzip
import json
import re
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from mlserver_pyfunc.testing import Server

pytestmark = pytest.mark.server
FUNCTIONS = Path(__file__).parent / "functions"


@pytest.fixture(scope="module")
def server():
    with Server(FUNCTIONS) as server:
        yield server


def get(server, path):
    with urllib.request.urlopen(server.url + path) as response:
        return response.read().decode(), response.headers


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/gallery/playground",
        "/v2/models/gallery/versions/1/playground",
        "/v2/models/story/playground",
        "/v2/playground",
    ],
)
def test_a_page_refers_to_nothing_outside_itself_and_says_so(server, path):
    page, headers = get(server, path)
    assert headers["content-type"].startswith("text/html")
    policy = headers["content-security-policy"]
    (nonce,) = set(re.findall(r"'nonce-([^']+)'", policy))
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert set(re.findall(r'nonce="([^"]+)"', page)) == {nonce}
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page)
    assert not re.findall(r"\son\w+=", page.partition("<script")[0])
    assert get(server, path)[1]["content-security-policy"] != policy, "the nonce is used again"


@pytest.mark.parametrize("path", ["/v2/docs", "/v2/models/story/docs", "/docs"])
def test_the_api_document_needs_this_server_alone(server, path):
    page, headers = get(server, path)
    assert "script-src 'nonce-" in headers["content-security-policy"]
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page)
    root = re.search(r'src="([^"]*)swagger-ui-bundle.js"', page)[1]
    assert root == ("./docs/" if "models" not in path else "../../docs/")
    for name in ("swagger-ui-bundle.js", "swagger-ui.css"):
        with urllib.request.urlopen(f"{server.url}/v2/docs/{name}") as response:
            assert len(gzip.decompress(response.read())) > 100_000
    for path in ("/v2/docs/other.js", "/v2/models/nobody/docs"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(server, path)


@pytest.mark.parametrize("path", ["models/gallery/playground", "playground", "docs"])
def test_pages_are_compressed_for_who_takes_that(server, path):
    request = urllib.request.Request(f"{server.url}/v2/{path}", headers={"Accept-Encoding": "gzip"})
    with urllib.request.urlopen(request) as response:
        packed = response.read()
        assert response.headers["content-encoding"] == "gzip"
        assert "script-src 'nonce-" in response.headers["content-security-policy"]
    plain, headers = get(server, f"/v2/{path}")
    assert "content-encoding" not in headers
    assert headers["vary"] == "Accept-Encoding"
    assert len(packed) < min(len(plain), 50_000)
    assert len(gzip.decompress(packed).decode()) == len(plain)


def test_the_root_leads_to_the_list_with_inputs(server):
    page, _ = get(server, "/")
    assert "<code>topic BYTES [1]</code>" in page


def test_the_page_tells_contract_origin_and_limits(server):
    page, _ = get(server, "/v2/models/gallery/playground")
    (block,) = re.findall(r'<script type="application/json" id="model">(.*?)</script>', page, re.S)
    model = json.loads(block)
    assert (model["name"], model["version"], model["streams"]) == ("gallery", "1", False)
    assert [tensor["name"] for tensor in model["inputs"]] == [
        "picture", "frame", "weights", "flags", "id", "steps",
    ]  # fmt: skip
    assert model["inputs"][0]["description"] == "a PNG or JPEG file </script><b>"
    assert model["details"]["time limit"] == "60 s"
    assert model["details"]["source"] == "model.py"
    assert "sha256" in model["details"]


def test_the_list_links_every_version(server):
    page, _ = get(server, "/v2/playground")
    links = re.findall(r'href="(models/[^"]+)"', page)
    assert links == [
        "models/gallery/versions/1/playground",
        "models/story/playground",
        "models/table/playground",
    ]
    for link in links:
        get(server, f"/v2/{link}")


@pytest.mark.parametrize("page", ["playground", "openapi.json"])
def test_an_unknown_model_answers_404_as_the_protocol_does(server, page):
    for path in (f"/v2/models/absent/{page}", f"/v2/models/gallery/versions/9/{page}"):
        with pytest.raises(urllib.error.HTTPError) as raised:
            get(server, path)
        assert raised.value.code == 404
        assert "not found" in json.load(raised.value)["error"]


def test_the_pages_follow_unload_and_reload(server):
    def post(action):
        url = f"{server.url}/v2/repository/models/story/{action}"
        urllib.request.urlopen(urllib.request.Request(url, b"", method="POST")).read()

    post("unload")
    with pytest.raises(urllib.error.HTTPError) as raised:
        get(server, "/v2/models/story/playground")
    assert raised.value.code == 404
    assert "gallery" in get(server, "/v2/playground")[0]
    post("load")
    post("load")
    assert "story" in get(server, "/v2/models/story/playground")[0]


def test_one_setting_switches_the_playground_off():
    with Server(FUNCTIONS / "story", env={"MLSERVER_PYFUNC_PLAYGROUND": "0"}) as server:
        for path in ("/v2/models/story/playground", "/v2/playground"):
            with pytest.raises(urllib.error.HTTPError) as raised:
                get(server, path)
            assert raised.value.code == 404
            assert "MLSERVER_PYFUNC_PLAYGROUND" in json.load(raised.value)["error"]
        get(server, "/v2/models/story/openapi.json")


def test_a_path_prefix_of_the_server_is_in_its_documents():
    with Server(FUNCTIONS / "story", env={"MLSERVER_ROOT_PATH": "/gate"}) as server:
        described = json.loads(get(server, "/v2/models/story/openapi.json")[0])
        assert described["servers"] == [{"url": "/gate"}]
        assert 'href="../../playground"' in get(server, "/v2/models/story/playground")[0]
