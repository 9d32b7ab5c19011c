"""HTTP for log-ins, sessions and API keys."""

from typing import Annotated, cast
from uuid import UUID

from fastapi import APIRouter, Depends, Form, Query, Request, Response, status

from pricebook.auth import recovery, service
from pricebook.auth.authenticator import Authenticator
from pricebook.auth.schemas import (
    ApiKeyIn,
    ApiKeyOut,
    EmailProof,
    Listing,
    LogIn,
    NewApiKey,
    PasswordReset,
    PasswordResetRequest,
    SessionOut,
    TokenOut,
)
from pricebook.core.attempts import Gate
from pricebook.core.current import Person, Public, client_network
from pricebook.core.pagination import Page, link_next
from pricebook.core.reading import Row
from pricebook.core.routing import resource
from pricebook.core.session import DbSession, Reads

# A plain router: every log-in opens a session of its own, so there is no answer to repeat.
tokens = APIRouter(prefix="/auth", tags=["auth"])
router = resource("/auth", "auth")
api_keys = resource("/api-keys", "auth")


async def authenticator(request: Request) -> Authenticator:
    """Return the process's authenticator."""
    return cast("Authenticator", request.app.state.authenticate)


Known = Annotated[Authenticator, Depends(authenticator)]


@tokens.post("/token", dependencies=[Public], responses={401: {}})
async def log_in(
    form: Annotated[LogIn, Form()],
    session: DbSession,
    gate: Gate,
    request: Request,
    response: Response,
) -> TokenOut:
    """Log in with e-mail address and password, as OAuth2's password grant does."""
    token = await service.log_in(
        session,
        gate,
        form,
        address=client_network(request),
        user_agent=request.headers.get("user-agent"),
    )
    _keep_nowhere(response)
    return TokenOut(access_token=token, expires_in=int(gate.settings.session_hours * 3_600))


def _keep_nowhere(response: Response) -> None:
    """RFC 6749, section 5.1: no cache may keep an answer that holds a token."""
    response.headers.update({"Cache-Control": "no-store", "Pragma": "no-cache"})


@router.delete("/token", status_code=status.HTTP_204_NO_CONTENT)
async def log_out(person: Person, session: DbSession, known: Known) -> None:
    """End the session that asks."""
    known.forget_after(session)
    await service.close_session(session, person, person.credential_id)


@router.get("/sessions", response_model=Page[SessionOut])
async def list_sessions(
    person: Person,
    listing: Annotated[Listing, Query()],
    reads: Reads,
    request: Request,
    response: Response,
) -> Page[Row]:
    """List your sessions, newest first."""
    page = await service.list_sessions(reads, person, listing)
    link_next(request, response, page.next_cursor)
    return page


@router.delete("/sessions", status_code=status.HTTP_204_NO_CONTENT)
async def close_other_sessions(person: Person, session: DbSession, known: Known) -> None:
    """End all your sessions but the one that asks."""
    known.forget_after(session)
    await service.close_other_sessions(session, person)


@router.get("/sessions/{session_id:uuid}", response_model=SessionOut)
async def read_session(person: Person, session_id: UUID, reads: Reads) -> Row:
    """Return one of your sessions."""
    return await service.get_session(reads, person, session_id)


@router.delete("/sessions/{session_id:uuid}", status_code=status.HTTP_204_NO_CONTENT)
async def close_session(person: Person, session_id: UUID, session: DbSession, known: Known) -> None:
    """End one of your sessions."""
    known.forget_after(session)
    await service.close_session(session, person, session_id)


@router.post(
    "/password-reset",
    status_code=status.HTTP_202_ACCEPTED,
    response_class=Response,
    dependencies=[Public],
)
async def request_password_reset(
    forgotten: PasswordResetRequest, session: DbSession, gate: Gate, request: Request
) -> None:
    """Have a mail sent that lets set a new password; the answer is the same for any address."""
    network = client_network(request)
    await recovery.request_reset(session, gate.settings, forgotten.email, network=network)


@router.post(
    "/password-reset/confirm", status_code=status.HTTP_204_NO_CONTENT, dependencies=[Public]
)
async def reset_password(
    reset: PasswordReset, session: DbSession, gate: Gate, known: Known, request: Request
) -> None:
    """Set a new password with the token of the mail. All your sessions end; API keys stay."""
    known.forget_after(session)
    await recovery.reset_password(session, gate, reset, network=client_network(request))


@router.post("/verify-email", status_code=status.HTTP_204_NO_CONTENT, dependencies=[Public])
async def verify_email(proof: EmailProof, session: DbSession) -> None:
    """Prove with the token of the mail that the e-mail address is yours."""
    await recovery.verify_email(session, proof.token)


@router.post("/verify-email/resend", status_code=status.HTTP_202_ACCEPTED, response_class=Response)
async def request_email_verification(me: Person, session: DbSession, gate: Gate) -> None:
    """Have another mail sent with which you can prove your e-mail address, if it is not yet."""
    await recovery.request_verification(session, gate.settings, me)


@api_keys.get("", response_model=Page[ApiKeyOut])
async def list_api_keys(
    person: Person,
    listing: Annotated[Listing, Query()],
    reads: Reads,
    request: Request,
    response: Response,
) -> Page[Row]:
    """List your API keys, newest first."""
    page = await service.list_api_keys(reads, person, listing)
    link_next(request, response, page.next_cursor)
    return page


@api_keys.post("", response_model=NewApiKey, status_code=status.HTTP_201_CREATED)
async def create_api_key(
    person: Person, new: ApiKeyIn, session: DbSession, request: Request, response: Response
) -> NewApiKey:
    """Make an API key. The answer shows the key itself, this once."""
    api_key, key = await service.create_api_key(session, person, new)
    response.headers["Location"] = f"{request.url.path}/{api_key.id}"
    _keep_nowhere(response)
    shown = ApiKeyOut.model_validate(api_key).model_dump()
    return NewApiKey(**shown, key=key.get_secret_value())


@api_keys.get("/{api_key_id:uuid}", response_model=ApiKeyOut)
async def read_api_key(person: Person, api_key_id: UUID, reads: Reads) -> Row:
    """Return one of your API keys, without the key itself."""
    return await service.get_api_key(reads, person, api_key_id)


@api_keys.delete("/{api_key_id:uuid}", status_code=status.HTTP_204_NO_CONTENT)
async def revoke_api_key(
    person: Person, api_key_id: UUID, session: DbSession, known: Known
) -> None:
    """Revoke one of your API keys."""
    known.forget_after(session)
    await service.revoke_api_key(session, person, api_key_id)
