"""The page that shows the API document, from this server alone."""

import re

import pytest

from pricebook.system.pages import STATIC


@pytest.fixture
async def page(api) -> str:
    reply = await api.get("/docs")
    assert reply.status_code == 200
    return reply.text


async def test_the_page_loads_nothing_from_elsewhere(api, page):
    links = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(links) >= 4
    for link in links:
        assert "//" not in link
        assert (await api.get(f"/{link}")).status_code == 200
    script = (await api.get("/assets/docs.js")).text
    assert "//" not in script.replace("// ", "")


async def test_the_page_runs_without_inline_scripts_and_styles(api, page):
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\son\w+=", page)
    policy = (await api.get("/docs")).headers["content-security-policy"]
    directives = dict(part.split(" ", 1) for part in policy.split("; "))
    assert directives["default-src"] == "'none'"
    assert directives["script-src"] == directives["style-src"] == "'self'"
    assert "unsafe" not in policy


async def test_the_first_page_leads_to_the_document(api):
    reply = await api.get("/")
    assert (reply.status_code, reply.headers["location"]) == (307, "/docs")


async def test_the_document_can_be_switched_off(make_api):
    quiet = await make_api(http={"docs": False})
    for path in ("/docs", "/openapi.json"):
        assert (await quiet.get(path)).status_code == 404
    assert (await quiet.get("/")).headers["location"] == "/health"
    assert (await quiet.get("/assets/health.css")).status_code == 200


async def test_an_asset_is_sent_again_only_when_it_changed(api):
    first = await api.get("/assets/swagger-ui/swagger-ui-bundle.js")
    headers = {"If-None-Match": first.headers["etag"]}
    second = await api.get("/assets/swagger-ui/swagger-ui-bundle.js", headers=headers)
    assert (first.status_code, second.status_code, second.content) == (200, 304, b"")


@pytest.mark.parametrize("path", ["../routes.py", "..%2froutes.py", "%2e%2e/routes.py", "", "%00"])
async def test_no_other_file_is_served(path, api):
    assert (await api.get(f"/assets/{path}")).status_code in (404, 405)


def test_the_licence_of_what_is_bundled_comes_with_it():
    folder = STATIC / "swagger-ui"
    assert "Apache License" in (folder / "LICENSE").read_text(encoding="utf-8")
    assert (folder / "NOTICE").stat().st_size
