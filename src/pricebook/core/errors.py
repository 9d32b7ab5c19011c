"""The kinds of refusal. An error is a name, a kind and a sentence; `core.problems` makes it HTTP.

A slice declares its own errors in its `errors.py`:

    class ItemNotFound(NotFound):
        '''There is no such item.'''

The docstring is the sentence the caller reads. The class name, in kebab case, is the stable
`type` of the problem.

    PricebookError
    ├── Malformed               400
    ├── Unauthenticated         401
    ├── Forbidden               403
    ├── NotFound                404
    ├── RequestTimeout          408
    ├── Conflict                409
    ├── PreconditionFailed      412
    ├── TooLarge                413
    ├── UnsupportedMediaType    415
    ├── RangeNotSatisfiable     416  (says how much there is)
    ├── Invalid                 422  (names the field)
    ├── PreconditionRequired    428
    ├── TooManyRequests         429  (says when to come back)
    └── Unavailable             503  (says when to come back)
"""

import inspect
import re
from collections.abc import Mapping

_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class PricebookError(Exception):
    """The request was refused."""

    status = 500

    def __init__(self, detail: str | None = None, *, pointer: str = "", **context: object) -> None:
        """Refuse with the class's own sentence, or a more exact one.

        `pointer` names the part of the request that was refused (RFC 6901, or `query/limit`);
        `context` is for the log.
        """
        super().__init__(detail or self.sentence())
        self.pointer = pointer
        self.context = context

    @classmethod
    def slug(cls) -> str:
        """The stable name in the problem's `type`."""
        return _WORD.sub("-", cls.__name__).lower()

    @classmethod
    def title(cls) -> str:
        """The name as words: `Item not found`."""
        return cls.slug().replace("-", " ").capitalize()

    @classmethod
    def sentence(cls) -> str:
        """What went wrong, for the caller."""
        return inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0].replace("\n", " ")

    def headers(self) -> Mapping[str, str]:
        """Headers that belong to this refusal."""
        return {}


class Malformed(PricebookError):
    """The request could not be read."""

    status = 400


class Unauthenticated(PricebookError):
    """Valid credentials are needed."""

    status = 401

    def headers(self) -> Mapping[str, str]:
        """The challenge that RFC 9110, section 11.6.1 asks for."""
        return {"WWW-Authenticate": "Bearer"}


class Forbidden(PricebookError):
    """The credentials do not allow this."""

    status = 403


class NotFound(PricebookError):
    """There is nothing here."""

    status = 404


class RequestTimeout(PricebookError):
    """The request took too long to arrive."""

    status = 408

    def headers(self) -> Mapping[str, str]:
        """What is left of the request is not waited for (RFC 9110, section 15.5.9)."""
        return {"Connection": "close"}


class Conflict(PricebookError):
    """The request does not fit the present state."""

    status = 409


class PreconditionFailed(PricebookError):
    """It has changed since you read it; read it again."""

    status = 412


class TooLarge(PricebookError):
    """The body is larger than allowed."""

    status = 413


class UnsupportedMediaType(PricebookError):
    """The body is of a type or encoding that is not understood here."""

    status = 415


class RangeNotSatisfiable(PricebookError):
    """The range begins past the end of the file."""

    status = 416

    def __init__(self, *, size: int) -> None:
        """Refuse a range of a file of `size` bytes."""
        super().__init__()
        self.size = size

    def headers(self) -> Mapping[str, str]:
        """How much there is (RFC 9110, section 14.4)."""
        return {"Content-Range": f"bytes */{self.size}"}


class Invalid(PricebookError):
    """Part of the request is not valid."""

    status = 422


class PreconditionRequired(PricebookError):
    """An If-Match header is required."""

    status = 428


class _ComeBack(PricebookError):
    """Refused for now."""

    def __init__(
        self, detail: str | None = None, *, retry_after_seconds: int = 1, **context: object
    ) -> None:
        """Refuse until `retry_after_seconds` from now."""
        super().__init__(detail, pointer="", **context)
        self.retry_after_seconds = retry_after_seconds

    def headers(self) -> Mapping[str, str]:
        """When to come back, in seconds."""
        return {"Retry-After": str(self.retry_after_seconds)}


class TooManyRequests(_ComeBack):
    """Too many requests; slow down."""

    status = 429


class Unavailable(_ComeBack):
    """The service cannot answer just now; try again."""

    status = 503
