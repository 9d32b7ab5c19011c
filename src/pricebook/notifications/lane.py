"""The lane of mail: from duties to write somebody, by way of templates, to the mail server."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, ClassVar, cast
from uuid import UUID

import structlog
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from pricebook.auth.one_time import Purpose, issue_token
from pricebook.core import tracing
from pricebook.core.database import Database
from pricebook.core.deliveries import Claim, Outcome, Verdict
from pricebook.core.file_links import FileLinks, Linked
from pricebook.core.lanes import Lane, attempt_span
from pricebook.core.mail import Letter, Mailer
from pricebook.core.settings import Settings
from pricebook.notifications import claims
from pricebook.notifications.kinds import MAILED_AS, MailKind
from pricebook.notifications.letters import Change, changes_of, write
from pricebook.notifications.models import Mail
from pricebook.notifications.unsubscribing import Unsubscriber

_PAGES = {MailKind.PASSWORD_RESET: "reset-password", MailKind.VERIFY_EMAIL: "verify-email"}
_KINDS = {mailed: kind for kind, mailed in MAILED_AS.items()}

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class MailClaim(Claim):
    """A mail to write and send, with all that it is written from."""

    kind: MailKind
    user_id: UUID
    email: str
    user_name: str
    credentials_epoch: int
    is_disabled: bool
    is_verified: bool
    data: Mapping[str, Any]
    changes: Sequence[Change] = ()
    change_count: int = 0

    @property
    def objection(self) -> str | None:
        """Why it is not to be sent any more, if so."""
        if self.is_disabled and self.kind is not MailKind.SECURITY:
            return "the user is disabled"
        if self.kind is MailKind.VERIFY_EMAIL and self.is_verified:
            return "the address is verified already"
        if self.kind is MailKind.PRICE_CHANGES and not self.changes:
            return "what it would tell is gone"
        return None


class MailLane(Lane[MailClaim, Outcome]):
    """Sends mail; without a mail server it claims none, and all of it waits."""

    name: ClassVar[str] = "mail"
    table: ClassVar[type[Mail]] = Mail

    def __init__(self, settings: Settings, database: Database) -> None:
        """Say it, once, if mail has nowhere to go."""
        self.capacity = settings.mail.concurrency
        self.delays_seconds = settings.mail.retry_delays_seconds
        self.lease_seconds = settings.delivery.lease_seconds
        self._at_once_per_hour = settings.mail.at_once_per_hour
        self._public_url = settings.public_url.rstrip("/")
        self._sessions = database.sessions
        self._mailer = Mailer(settings.mail)
        self._unsubscriber = Unsubscriber(settings)
        self._file_links = FileLinks(settings)
        if not self._mailer.is_ready:
            log.warning("mail waits: PRICEBOOK_MAIL__URL is not set")

    async def claim(
        self,
        session: AsyncSession,
        held: Sequence[MailClaim],  # noqa: ARG002 -- mail has one receiver, the mail server
        room: int,
    ) -> Sequence[MailClaim]:
        """Take mails that are due, and read what they are about."""
        if not self._mailer.is_ready:
            return []
        statement = claims.taken(self.lease_seconds, room, self._at_once_per_hour)
        rows = await session.execute(statement)
        claimed = [_claim_of(row) for row in rows.mappings()]
        gathered = [one.id for one in claimed if one.kind is MailKind.PRICE_CHANGES]
        if not gathered:
            return claimed
        # A statement of its own: the one that locked a mail may have begun before the last change
        # in it was committed, and does not see it.
        found = await _changes(session, gathered)
        traces = await _traces(session, gathered) if tracing.is_on() else {}
        return [
            replace(_with_changes(one, found), causes=traces.get(one.id, one.causes))
            for one in claimed
        ]

    async def send(self, claim: MailClaim) -> Outcome:
        """Write the mail and hand it over; one that nobody needs any more is dropped."""
        if (objection := claim.objection) is not None:
            return Outcome(is_final=True, is_needed=False, error=f"not sent: {objection}")
        with attempt_span("send mail", claim) as span:
            span.set_attribute("pricebook.mail_kind", claim.kind.value)
            link = await self._link(claim)
            outcome = await self._mailer.send(self._letter(claim, link))
            if outcome.error is not None:
                tracing.fail(span, _error_type(outcome.error))
            return outcome

    async def _link(self, claim: MailClaim) -> str:
        """Return where the mail leads; what it opens is made now, and kept nowhere but there."""
        page = _PAGES.get(claim.kind)
        if page is None:
            return self._file_link(claim) or self._public_url
        async with self._sessions.begin() as session:
            token = await issue_token(
                session,
                user_id=claim.user_id,
                email=claim.email,
                purpose=cast("Purpose", claim.kind.value),
            )
        # Behind "#": browsers send that to no server, so that no log holds it.
        return f"{self._public_url}/{page}#token={token.get_secret_value()}"

    def _file_link(self, claim: MailClaim) -> str | None:
        """Return a link to the file that the mail tells of, if there is one."""
        if "file" not in claim.data:
            return None
        linked = Linked(claim.data["file"], claim.user_id, claim.credentials_epoch)
        return self._file_links.url(linked, datetime.fromisoformat(claim.data["expires_at"]))

    def _letter(self, claim: MailClaim, link: str) -> Letter:
        kind = _KINDS.get(claim.kind)
        written = write(
            claim.kind,
            {
                "user_name": claim.user_name,
                "email": claim.email,
                "link": link,
                "public_url": self._public_url,
                "data": claim.data,
                "changes": claim.changes,
                "change_count": claim.change_count,
            },
        )
        return Letter(
            id=claim.id,
            recipient=claim.email,
            subject=written.subject,
            text=written.text,
            html=written.html,
            unsubscribe_url=self._unsubscriber.url(claim.user_id, kind) if kind else None,
        )

    def broken(self, error: Exception) -> Outcome:
        """Try again: whatever it was, the next attempt writes the mail anew."""
        return Outcome(error=type(error).__name__)

    async def settled(
        self, session: AsyncSession, results: Sequence[tuple[MailClaim, Outcome, Verdict]]
    ) -> None:
        """Keep the last error of what was not sent."""
        errors = [
            {"id": claim.id, "last_error": outcome.error}
            for claim, outcome, _verdict in results
            if not outcome.is_delivered or claim.attempts
        ]
        if errors:
            await session.execute(update(Mail), errors)


def _error_type(error: str) -> str:
    """Return the code of a mail server's answer, which may name the address behind it."""
    code = error.split(maxsplit=1)[0]
    return code if code.isdigit() else "_OTHER"


def _claim_of(row: Mapping[Any, Any]) -> MailClaim:
    values = {**row, "kind": MailKind(row["kind"])}
    traceparent = values.pop("traceparent")
    return MailClaim(**values, causes=tuple(filter(None, [traceparent])))


async def _traces(session: AsyncSession, mail_ids: Collection[UUID]) -> dict[UUID, list[str]]:
    found = await session.execute(claims.traces_of(mail_ids))
    return {row.mail_id: row.traces for row in found}


async def _changes(
    session: AsyncSession, mail_ids: Collection[UUID]
) -> Mapping[UUID, tuple[Sequence[Change], int]]:
    rows = defaultdict(list)
    counts: dict[UUID, int] = {}
    for row in await session.execute(claims.gathered_changes(mail_ids)):
        rows[row.mail_id].append((row.first, row.last))
        counts[row.mail_id] = row.change_count
    return {mail_id: (changes_of(found), counts[mail_id]) for mail_id, found in rows.items()}


def _with_changes(
    claim: MailClaim, found: Mapping[UUID, tuple[Sequence[Change], int]]
) -> MailClaim:
    changes, count = found.get(claim.id, ((), 0))
    return replace(claim, changes=changes, change_count=count)
