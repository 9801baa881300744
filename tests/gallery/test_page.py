"""The search page without a browser: what it answers, and what it refuses."""

import io
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from PIL import Image

from gallery.options import PageOptions
from gallery.page import create_app
from gallery.searcher import Searcher
from tests.helpers.colours import COLOURS, colour_searcher, paint

NASTY = "<script>alert('x')</script>"


@pytest.fixture
def searcher(tmp_path: Path) -> Searcher:
    gallery = tmp_path / "gallery"
    for name, colour in (("a/red.png", "red"), ("green.jpg", "green"), (f"{NASTY[:20]}.jpg", "green")):
        paint(gallery / name.replace("</", "<"), colour)
    paint(gallery / "blue.tif", "blue", (1000, 2000))
    paint(tmp_path / "secret.png", "red")
    return colour_searcher(gallery, tmp_path / "index")


@pytest.fixture
def client(searcher: Searcher) -> FlaskClient:
    return create_app(searcher, 3).test_client()


def names(html: str) -> list[str]:
    return re.findall(r'<p class="path">(.*?)</p>', html)


def test_photos_are_ranked(client: FlaskClient):
    page = client.get("/?q=a+red+coat&k=2")
    assert page.status_code == 200
    assert names(page.text)[0] == "a/red.png" and len(names(page.text)) == 2
    assert 'value="a red coat"' in page.text
    scores = [float(score) for score in re.findall(r'class="score">(.*?)<', page.text)]
    assert scores == sorted(scores, reverse=True)
    assert len(names(client.get("/?q=red").text)) == 3
    assert names(client.get("/").text) == []


def test_more_like_a_photo(client: FlaskClient, searcher: Searcher):
    position = [searcher.name(number) for number in range(len(searcher))].index("blue.tif")
    assert names(client.get(f"/?like={position}").text)[0] == "blue.tif"
    assert client.get("/?like=9999").status_code == 400
    assert client.get("/?like=-1").status_code == 400


def upload(client: FlaskClient, content: bytes, name: str = "my.png"):
    return client.post("/?k=2", data={"image": (io.BytesIO(content), name)}, content_type="multipart/form-data")


def test_an_image_as_the_query(client: FlaskClient, tmp_path: Path):
    page = upload(client, (tmp_path / "secret.png").read_bytes(), NASTY)
    assert page.status_code == 200 and len(names(page.text)) == 2
    assert names(page.text)[0] == "a/red.png"
    assert "data:image/jpeg;base64," in page.text
    assert NASTY not in page.text
    broken = upload(client, b"no image")
    assert broken.status_code == 400 and "my.png cannot be read: not an image" in broken.text
    assert "/tmp" not in broken.text
    assert "Choose an image first" in upload(client, b"", "").text
    assert "larger than 32 MB" in upload(client, bytes(33 << 20)).text


@pytest.mark.parametrize("query", ["", "+++", "%0A"])
def test_an_empty_query_is_told_what_to_do(client: FlaskClient, query: str):
    page = client.get(f"/?q={query}")
    assert page.status_code == 400
    assert "Describe the person first" in page.text


@pytest.mark.parametrize("k", ["0", "1001", "x", "1e3", "-1", "9" * 5000])
def test_a_wrong_number_of_photos(client: FlaskClient, k: str):
    page = client.get("/", query_string={"q": "red", "k": k})
    assert page.status_code == 400
    assert "number of photos must be a whole number from 1 to 1000" in page.text


def test_a_query_that_is_too_long_is_cut_and_said_to_be(client: FlaskClient):
    assert "Query truncated from 9 to 4 tokens" in client.get("/?q=red+" + "+".join("abcdefgh")).text
    assert "tokens" not in client.get("/?q=red").text


def test_texts_are_escaped(client: FlaskClient):
    page = client.get("/", query_string={"q": f"green \"'{NASTY}"}).text
    assert "<script>" not in page.replace("<script src=", "")
    assert "&lt;script&gt;" in page


def test_photos_and_thumbnails(client: FlaskClient, searcher: Searcher):
    position = [searcher.name(number) for number in range(len(searcher))].index("blue.tif")
    sizes = {"photo": (1000, 2000), "thumb": (240, 480)}
    for kind, size in sizes.items():
        answer = client.get(f"/{kind}/{position}")
        assert answer.mimetype == "image/jpeg"
        with Image.open(io.BytesIO(answer.data)) as image:
            assert image.format == "JPEG" and image.size == size
            assert image.getpixel((5, 5)) == pytest.approx(COLOURS["blue"], abs=6)


@pytest.mark.parametrize(
    "path",
    [
        "../secret.png",
        "..%2fsecret.png",
        "%2e%2e/secret.png",
        "..%5csecret.png",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "a/red.png",
        "-1",
        "4",
        "99999999999999999999999",
        "0%00",
        "0/../../secret.png",
    ],
)
def test_nothing_but_positions_of_the_index_is_served(client: FlaskClient, path: str):
    for kind in ("photo", "thumb", "static"):
        answer = client.get(f"/{kind}/{path}")
        assert answer.status_code == 404, answer.data[:100]


def test_links_that_lead_out_of_the_gallery_are_refused(client: FlaskClient, searcher: Searcher, tmp_path: Path):
    red = searcher.gallery / "a" / "red.png"
    position = [searcher.name(number) for number in range(len(searcher))].index("a/red.png")
    red.unlink()
    red.symlink_to(tmp_path / "secret.png")
    assert client.get(f"/photo/{position}").status_code == client.get(f"/thumb/{position}").status_code == 404
    red.unlink()
    red.parent.rmdir()
    (searcher.gallery / "a").symlink_to(tmp_path)
    (tmp_path / "red.png").write_bytes((tmp_path / "secret.png").read_bytes())
    assert client.get(f"/photo/{position}").status_code == 404
    with pytest.raises(ValueError, match="leads out of the gallery"):
        searcher.path(position)


def test_files_that_are_no_photos_any_more(client: FlaskClient, searcher: Searcher):
    for number in range(len(searcher)):
        (searcher.gallery / searcher.name(number)).write_text(f"<html>{NASTY}")
        answer = client.get(f"/photo/{number}")
        assert answer.status_code == 404 and NASTY not in answer.text


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "192.168.0.1", ""])
def test_other_names_of_this_machine_are_refused(client: FlaskClient, host: str):
    for path in ("/", "/?q=red", "/photo/0", "/static/search.js"):
        assert client.get(path, headers={"Host": host}).status_code == 400


@pytest.mark.parametrize("host", ["localhost", "localhost:9000", "127.0.0.1:7860"])
def test_tunnels_work(client: FlaskClient, host: str):
    assert client.get("/", headers={"Host": host}).status_code == 200


def test_every_answer_has_the_headers(client: FlaskClient):
    for path in ("/", "/?q=", "/?q=red", "/photo/0", "/photo/99", "/static/search.css", "/nowhere"):
        headers = client.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff", path
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["Cache-Control"] == "no-store"
    assert client.delete("/").status_code == 405


def test_nothing_is_loaded_from_elsewhere(client: FlaskClient):
    for path in ("/?q=red", "/static/search.css", "/static/search.js"):
        assert not re.findall(r"(?:https?:)?//[a-z]+\.[a-z]", client.get(path).text)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "waitress", None)
    with pytest.raises(ValueError, match="needs the package waitress; pip install flask waitress"):
        PageOptions(serve=True)


def test_photos_that_go_or_change_while_the_page_is_served(client: FlaskClient, searcher: Searcher):
    assert "since the search page" not in client.get("/?q=red").text
    (searcher.gallery / "green.jpg").unlink()
    paint(searcher.gallery / "blue.tif", "green")
    page = client.get("/?q=red&k=4").text
    assert "Of these photos, 1 gone and 1 changed since the search page was started. Start search.py again" in page
    assert "green.jpg (not there any more)" in names(page)
    shutil.rmtree(searcher.gallery)
    page = client.get("/?q=red")
    assert page.status_code == 200 and f"The folder {searcher.gallery} is not there any more" in page.text
    assert client.get("/thumb/0").status_code == 404


def test_photos_that_are_gone_are_logged_seldom(
    client: FlaskClient, searcher: Searcher, caplog: pytest.LogCaptureFixture
):
    shutil.rmtree(searcher.gallery)
    for number in range(20):
        client.get(f"/thumb/{number % 4}")
    assert caplog.text.count("no such file") == 1


def test_one_photo_whose_name_is_not_utf8(tmp_path: Path):
    gallery = tmp_path / "gallery"
    paint(gallery / "red.png", "red")
    (gallery / "red.png").rename(gallery / os.fsdecode(b"r\xff\xfe.png"))
    client = create_app(colour_searcher(gallery, tmp_path / "index"), 3).test_client()
    page = client.get("/?q=green")
    assert page.status_code == 200 and names(page.text) == ["r\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}.png"]
    assert client.get("/thumb/0").status_code == client.get("/photo/0").status_code == 200


def test_a_request_that_is_too_large_without_an_image(client: FlaskClient):
    assert (
        "This request is too large"
        in client.post("/", data={"q": "x" * 600_000}, content_type="multipart/form-data").text
    )
