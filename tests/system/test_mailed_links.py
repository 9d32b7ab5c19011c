"""The pages that the links in mails lead to."""

import re

import httpx2
import pytest

from pricebook.core.security import MIN_PASSWORD_LENGTH

PAGES = {
    "/reset-password": "v1/auth/password-reset/confirm",
    "/verify-email": "v1/auth/verify-email",
}


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_loads_nothing_from_elsewhere_and_runs_nothing_inline(api, path):
    reply = await api.get(path)
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    links = re.findall(r'(?:src|href)="([^"]+)"', reply.text)
    assert len(links) == 3
    for link in links:
        assert link.startswith("assets/")
        assert (await api.get(f"/{link}")).status_code == 200
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\son\w+=", reply.text)
    directives = dict(part.split(" ", 1) for part in reply.headers[POLICY].split("; "))
    assert directives["default-src"] == "'none'"
    assert directives["script-src"] == directives["style-src"] == "'self'"
    assert directives["connect-src"] == "'self'"


POLICY = "content-security-policy"


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_sends_its_token_where_the_api_takes_it(api, path):
    page = (await api.get(path)).text
    (target,) = re.findall(r'data-path="([^"]+)"', page)
    assert target == PAGES[path]
    reply = await api.post(f"/{target}", json={"token": "x", "new_password": "x"})
    assert reply.status_code == 422


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_works_where_a_proxy_serves_it(make_api, path):
    """All that it names is relative to itself; see also the browser's address bar."""
    behind = await make_api(http={"root_path": "/prices"})
    page = await behind.get(f"/prices{path}")
    assert page.status_code == 200
    base = httpx2.URL(f"http://pricebook.test/prices{path}")
    for link in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert (await behind.get(base.join(link))).status_code == 200
    (target,) = re.findall(r'data-path="([^"]+)"', page.text)
    assert (await behind.post(base.join(target), json={})).status_code == 422


async def test_the_token_is_never_where_a_server_or_a_history_keeps_it(api):
    script = (await api.get("/assets/mailed-link.js")).text
    assert "location.hash" in script
    assert "history.replaceState" in script
    for leak in ("localStorage", "sessionStorage", "console.", "document.cookie", "innerHTML"):
        assert leak not in script
    assert (await api.get("/reset-password")).headers["referrer-policy"] == "no-referrer"


async def test_the_page_says_what_a_password_must_be(api):
    page = (await api.get("/reset-password")).text
    assert f'minlength="{MIN_PASSWORD_LENGTH}"' in page
    assert page.count('autocomplete="new-password"') == 2
    assert f"{MIN_PASSWORD_LENGTH} characters or more" in page


async def test_the_pages_are_there_without_the_docs(make_api):
    quiet = await make_api(http={"docs": False})
    for path in PAGES:
        assert (await quiet.get(path)).status_code == 200
