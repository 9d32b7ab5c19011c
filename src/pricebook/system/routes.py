"""The service about itself over HTTP; all of it outside `/v1`, and needing no credentials.

Health routes are not counted against any limit: a load balancer that shares its address with a
busy caller must still be answered.
"""

from hmac import compare_digest
from typing import Annotated, Any, cast

import orjson
from fastapi import APIRouter, Depends, Request, Response, status
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse
from pydantic import SecretStr
from starlette.staticfiles import StaticFiles

from pricebook.core import metrics
from pricebook.core.current import CredentialsInvalid, Public, bearer_token
from pricebook.system import pages
from pricebook.system.schemas import Health, Liveness, Status
from pricebook.system.service import HealthMonitor

router = APIRouter(tags=["system"])
docs = APIRouter(include_in_schema=False)
assets = StaticFiles(directory=pages.STATIC)

_PAGE_HEADERS = {"Content-Security-Policy": pages.PAGE_POLICY, "Cache-Control": "no-cache"}
_NOT_READY: dict[int | str, dict[str, Any]] = {
    503: {"model": Health, "description": "A critical part fails."}
}


async def monitor(request: Request) -> HealthMonitor:
    """Return the process's health monitor."""
    return cast("HealthMonitor", request.app.state.health)


Monitor = Annotated[HealthMonitor, Depends(monitor)]


@router.get("/", include_in_schema=False)
async def go_to_the_first_page(request: Request) -> RedirectResponse:
    """Lead people who come without a path to something they can use."""
    page = "/docs" if request.app.state.settings.http.docs else "/health"
    return RedirectResponse(request.scope.get("root_path", "") + page)


@router.get("/ping", response_class=PlainTextResponse)
async def ping() -> PlainTextResponse:
    """Answer `pong`."""
    return PlainTextResponse("pong")


@router.get("/health/live")
async def read_liveness(response: Response) -> Liveness:
    """Tell that the process answers; it asks nothing else, neither database nor Valkey."""
    response.headers["Cache-Control"] = "no-store"
    return Liveness()


@router.get("/health/ready", responses=_NOT_READY)
async def read_readiness(known: Monitor, response: Response) -> Health:
    """Tell whether requests can be answered: 503 if a critical part fails."""
    health = await known.check()
    response.status_code = _status_of(health)
    response.headers["Cache-Control"] = "no-store"
    return health


async def _may_read_metrics(request: Request) -> None:
    """Ask for the token of the settings, if there is one."""
    wanted: SecretStr | None = request.app.state.settings.metrics.token
    given = bearer_token(request) or ""
    if wanted and not compare_digest(given.encode(), wanted.get_secret_value().encode()):
        raise CredentialsInvalid


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    dependencies=[Depends(_may_read_metrics)],
    responses={401: {"description": "A token is set, and this is not it."}},
)
async def read_metrics(request: Request) -> Response:
    """Tell Prometheus what all processes of this address have counted."""
    registries = await request.app.state.measuring.registries()
    headers = {"Content-Type": metrics.MEDIA_TYPE, "Cache-Control": "no-store"}
    return Response(metrics.exposition(*registries), headers=headers)


@router.get(
    "/health",
    response_model=Health,
    responses={
        200: {"content": {"text/html": {"schema": {"type": "string"}}}},
        503: {
            "model": Health,
            "description": "A critical part fails.",
            "content": {"text/html": {"schema": {"type": "string"}}},
        },
    },
)
async def read_health(known: Monitor, request: Request, response: Response) -> Health | Response:
    """Tell how each part is doing, as a page for people or as JSON: whichever `Accept` prefers."""
    health = await known.check()
    headers = {"Cache-Control": "no-store", "Vary": "Accept"}
    if pages.prefers_html(request.headers.get("accept", "")):
        return HTMLResponse(
            pages.health_page(health),
            _status_of(health),
            headers={**_PAGE_HEADERS, **headers},
        )
    response.status_code = _status_of(health)
    response.headers.update(headers)
    return health


def _status_of(health: Health) -> int:
    if health.status is Status.OK:
        return status.HTTP_200_OK
    return status.HTTP_503_SERVICE_UNAVAILABLE


@router.get("/reset-password", include_in_schema=False)
async def show_password_reset() -> HTMLResponse:
    """Show where to set a new password; the token stays with the browser until it is sent."""
    return HTMLResponse(pages.password_reset_page(), headers=_PAGE_HEADERS)


@router.get("/verify-email", include_in_schema=False)
async def show_email_verification() -> HTMLResponse:
    """Show where to prove an e-mail address.

    It takes a click: some mail servers open every link that they pass on, and prove nothing by it.
    """
    return HTMLResponse(pages.email_verification_page(), headers=_PAGE_HEADERS)


@docs.get("/docs")
async def show_docs() -> HTMLResponse:
    """Show the API document as a page to read and try."""
    return HTMLResponse(pages.docs_page(), headers=_PAGE_HEADERS)


@docs.get("/openapi.json", dependencies=[Public])
async def read_openapi(request: Request) -> Response:
    """Return the API document."""
    return Response(
        orjson.dumps(request.app.openapi()),
        media_type="application/json",
        headers={"Cache-Control": "no-cache"},
    )
