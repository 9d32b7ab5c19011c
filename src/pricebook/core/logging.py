"""Structured logs: JSON lines for machines, readable text on a terminal."""

import logging
import logging.config
import sys
from typing import Any

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from pricebook.core.context import current_context
from pricebook.core.settings import LogSettings

# Alembic announces each plugin as loudly as a migration, SQLAlchemy each pool that it closes, arq
# each beat of a second.
_CHATTY = ("alembic.runtime.plugins", "arq.worker", "sqlalchemy.pool")


def configure_logging(settings: LogSettings) -> None:
    """Send every line of the process, libraries' lines included, to standard error in one form."""
    is_json = settings.format == "json" or (settings.format == "auto" and not sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_request,
    ]
    structlog.configure(
        processors=[*shared, *_rendering(is_json=is_json)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(settings.level)),
        logger_factory=_logger_factory(is_json=is_json),
        cache_logger_on_first_use=True,
    )
    _configure_libraries(settings.level, shared, is_json=is_json)


def _rendering(*, is_json: bool) -> list[Processor]:
    if not is_json:
        return [_console()]
    return [
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(serializer=_dumps),
    ]


def _console() -> Processor:
    # Its usual tracebacks print local variables, and so passwords and tokens.
    return structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)


def _dumps(event: EventDict, **_options: object) -> bytes:
    return orjson.dumps(event, default=str)


def _logger_factory(*, is_json: bool) -> Any:  # noqa: ANN401 -- structlog's two factories share no type
    if is_json:
        return structlog.BytesLoggerFactory(sys.stderr.buffer)
    return structlog.PrintLoggerFactory(sys.stderr)


def _add_request(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    """Say which request, delivery or job a line belongs to, and whose; and which trace."""
    if context := current_context():
        if context.request_id:
            event["request_id"] = context.request_id
        if context.user_id is not None:
            event["user_id"] = str(context.user_id)
        for name, value in context.about.items():
            event.setdefault(name, value)
        if context.trace_id is not None:
            event["trace_id"], event["span_id"] = context.trace_id, context.span_id
    return event


def _configure_libraries(level: str, shared: list[Processor], *, is_json: bool) -> None:
    render: Processor = (
        structlog.processors.JSONRenderer(serializer=lambda e, **_: _dumps(e).decode())
        if is_json
        else _console()
    )
    formatter = {
        "()": structlog.stdlib.ProcessorFormatter,
        "foreign_pre_chain": [*shared, structlog.processors.format_exc_info],
        "processors": [structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
    }
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"line": formatter},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
            "root": {"handlers": ["stderr"], "level": level},
            "loggers": {name: {"level": "WARNING"} for name in _CHATTY},
        }
    )
