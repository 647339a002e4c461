"""The page is served as static files; tests/browser tests its behaviour."""

import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from fake_server import colorizer
from fastapi.testclient import TestClient
from PIL import Image

from knowhue.serving.api import make_app
from knowhue.serving.settings import ServerSettings

SERVING = Path(__file__).parents[2] / "src" / "knowhue" / "serving"
PAGE = SERVING / "page"


@pytest.fixture(scope="module")
def client():
    app = make_app({"fake": colorizer()}, ServerSettings(workers=1), with_page=True)
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as made:
        yield made


def test_the_policy_allows_no_script_or_style_but_the_servers_files_and_the_page_has_no_other(client):
    page = client.get("/")
    policy = page.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert {"default-src 'none'", "script-src 'self'", "style-src 'self'"} <= set(policy.split("; "))
    assert not re.search(r"<script>|<style>|\sstyle=|\son\w+=|javascript:", page.text)


def test_the_page_names_no_other_host_and_all_that_it_names_is_there(client):
    page = client.get("/").text
    places = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(places) >= 6
    for place in places:
        assert re.match(r"[a-z]", place)
        assert client.get(f"/{place}").status_code == 200
    for script in PAGE.glob("*.js"):
        text = script.read_text(encoding="utf-8")
        assert set(re.findall(r"https?://[\w./]+", text)) <= {"http://www.w3.org/2000/svg"}
        for name in re.findall(r'from "\./([^"]+)"', text):
            answer = client.get(f"/page/{name}")
            assert answer.headers["content-type"].startswith("text/javascript")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", text)


@pytest.mark.parametrize("path", ["/", "/docs", "/favicon.ico", "/page/page.js"])
def test_a_file_that_the_client_has_is_not_sent_again(client, path):
    first = client.get(path)
    again = client.get(path, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    # they take the place of those that the client has
    assert again.headers["content-security-policy"] == first.headers["content-security-policy"]
    assert client.get(path, headers={"if-none-match": '"other"'}).content == first.content


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node to read JavaScript")
@pytest.mark.parametrize("script", sorted(PAGE.glob("*.js")), ids=lambda path: path.name)
def test_scripts_can_be_read(script: Path, tmp_path: Path):
    copy = tmp_path / f"{script.stem}.mjs"
    copy.write_bytes(script.read_bytes())
    done = subprocess.run(["node", "--check", copy], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "path",
    [
        "/page", "/page/", "/page/vendor", "/page/..%2Fapi.py", "/page/%2e%2e/api.py",
        "/page/examples/..%2F..%2Fapi.py", "/page/examples/",
        "/page/studies/0/report.html", "/page/studies/-1/report.html", "/page/studies/x/report.html",
        "/page/studies/0/gray.png", "/index.html", "/page/nothing.js",
    ],
)  # fmt: skip
def test_no_file_but_the_pages_own(client, path: str):
    answer = client.get(path)
    assert answer.status_code in (404, 422)
    assert list(answer.json()) == ["error"]


@pytest.mark.parametrize("path", ["/", "/page/page.js", "/page/studies.json"])
def test_what_is_only_read_takes_nothing(client, path: str):
    answer = client.post(path, content=b"x")
    assert answer.status_code == 405
    assert list(answer.json()) == ["error"]


def test_without_a_page_there_is_the_api_alone():
    with TestClient(
        make_app({"fake": colorizer()}, ServerSettings(workers=1)), base_url="http://localhost"
    ) as bare:
        for path in ("/", "/page/page.js", "/page/examples/girls.jpg", "/page/studies.json"):
            assert bare.get(path).status_code == 404
        assert bare.get("/v1/models").status_code == 200


def test_examples_are_small_gray_photos_whose_sources_are_named(client):
    sources = (SERVING / "examples" / "SOURCES.txt").read_text(encoding="utf-8")
    files = sorted((SERVING / "examples").glob("*.jpg"))
    assert len(files) == 3
    page = client.get("/").text
    for path in files:
        assert page.count(f'data-name="{path.name}"') == 1
        assert path.name in sources
        answer = client.get(f"/page/examples/{path.name}")
        assert len(answer.content) < 40_000
        assert Image.open(io.BytesIO(answer.content)).mode == "L"


def test_what_is_vendored_has_its_licence_and_version():
    (folder,) = (PAGE / "vendor").iterdir()
    about = json.loads((folder / "package.json").read_text(encoding="utf-8"))
    assert (about["name"], about["license"]) == (folder.name, "MIT")
    assert re.fullmatch(r"\d+\.\d+\.\d+", about["version"])
    assert "Permission is hereby granted" in (folder / "LICENSE.txt").read_text(encoding="utf-8")
    decisions = (Path(__file__).parents[2] / "docs" / "decisions.md").read_text(encoding="utf-8")
    assert f"{about['name']} {about['version']}" in decisions
