"""What every answer carries."""

from tests.conftest import Api


async def test_browsers_are_told_to_stay_on_https_only_over_https(api: Api) -> None:
    assert "strict-transport-security" not in (await api.get("/ping")).headers
    over_tls = await api.get("https://pricebook.test/ping")
    assert over_tls.headers["strict-transport-security"].startswith("max-age=")
