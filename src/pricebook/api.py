"""Every router and its prefix, on one screen; the busiest first, since routes match in order."""

from fastapi import FastAPI

from pricebook.auth import routes as auth
from pricebook.core.problems import Problem
from pricebook.items import routes as items
from pricebook.system import routes as system
from pricebook.users import routes as users

_PROBLEM = {"model": Problem, "content": {"application/problem+json": {}}}


def include_routers(app: FastAPI) -> None:
    """Give `app` its routes."""
    app.include_router(items.router, prefix="/v1")
    app.include_router(auth.tokens, prefix="/v1")
    app.include_router(auth.router, prefix="/v1")
    app.include_router(auth.api_keys, prefix="/v1")
    app.include_router(users.router, prefix="/v1")
    app.include_router(system.router)
