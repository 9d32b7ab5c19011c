"""Every router and its prefix, on one screen; the busiest first, since routes match in order."""

from fastapi import FastAPI

from pricebook.auth import routes as auth
from pricebook.events import routes as events
from pricebook.exports import routes as exports
from pricebook.imports import routes as imports
from pricebook.items import routes as items
from pricebook.jobs import routes as jobs
from pricebook.notifications import routes as notifications
from pricebook.system import routes as system
from pricebook.users import routes as users
from pricebook.webhooks import routes as webhooks

TAGS = [
    {"name": "items", "description": "What is sold, and for how much."},
    {"name": "auth", "description": "Logging in and out, sessions and API keys."},
    {"name": "users", "description": "The people who keep and read the list."},
    {"name": "imports", "description": "Files of items: what is in them, into the list."},
    {"name": "exports", "description": "The whole list, as a stream or as a file."},
    {"name": "jobs", "description": "Long work: how far it is, and what has become of it."},
    {"name": "webhooks", "description": "Systems that are told what happens, by signed POSTs."},
    {"name": "events", "description": "What has happened: in pages, and as it happens."},
    {"name": "notifications", "description": "What you watch, and what you are told."},
    {"name": "system", "description": "Whether the service lives, and whether it can answer."},
]

UPLOADS = (f"/v1{imports.UPLOAD_PATH}", imports.UPLOAD_PATH)
"""The paths that take uploads, the moved one among them: it has to lead to the other."""


def include_routers(app: FastAPI) -> None:
    """Give `app` its routes."""
    app.include_router(items.router, prefix="/v1")
    app.include_router(auth.tokens, prefix="/v1")
    app.include_router(auth.router, prefix="/v1")
    app.include_router(auth.api_keys, prefix="/v1")
    app.include_router(users.router, prefix="/v1")
    app.include_router(imports.router, prefix="/v1")
    app.include_router(jobs.router, prefix="/v1")
    app.include_router(exports.router, prefix="/v1")
    app.include_router(exports.file_router, prefix="/v1")
    app.include_router(webhooks.router, prefix="/v1")
    app.include_router(events.router, prefix="/v1")
    app.include_router(notifications.router, prefix="/v1")
    app.include_router(notifications.watches, prefix="/v1")
    app.include_router(system.router)
    app.mount("/assets", system.assets)
    if app.state.settings.http.docs:
        app.include_router(system.docs)
