"""The table of items, and what holds for every item."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    Column,
    Computed,
    Index,
    Numeric,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from pricebook.core.database import Base

SKU_IS_UNIQUE = "uq_items_sku"

# Text is ordered by code point and lowered by Unicode's rules, alike on every server, whatever
# locale its database was made with.
CollatedText = Text(collation="pg_c_utf8")
Tags = ARRAY(Text)


class Item(Base):
    """One sellable thing."""

    __tablename__ = "items"
    __table_args__ = (
        Column(
            "search_text",
            CollatedText,
            Computed(
                "lower(sku || ' ' || name || ' ' || coalesce(description, ''))", persisted=True
            ),
            nullable=False,
        ),
        UniqueConstraint("sku", name=SKU_IS_UNIQUE),
        CheckConstraint("char_length(sku) BETWEEN 1 AND 64", name="sku_length"),
        CheckConstraint("sku = btrim(sku) AND sku !~ '[[:cntrl:]]'", name="sku_form"),
        CheckConstraint("char_length(name) BETWEEN 1 AND 200", name="name_length"),
        CheckConstraint("char_length(description) <= 10000", name="description_length"),
        # NaN is a numeric, and greater than any other: only a bound above keeps it out.
        CheckConstraint("price >= 0 AND price < 'NaN'", name="price_amount"),
        CheckConstraint("cost >= 0 AND cost < 'NaN'", name="cost_amount"),
        CheckConstraint("tax_rate BETWEEN 0 AND 100", name="tax_rate_range"),
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency_form"),
        CheckConstraint(
            "cardinality(tags) <= 50 AND array_position(tags, NULL) IS NULL", name="tags_form"
        ),
        CheckConstraint("char_length(notes) <= 10000", name="notes_length"),
        CheckConstraint("version > 0", name="version_positive"),
        # One for each order of the list; the id makes the order total.
        Index("ix_items_price", "price", "id"),
        Index("ix_items_name", "name", "id"),
        Index("ix_items_created_at", "created_at", "id"),
        Index("ix_items_updated_at", "updated_at", "id"),
        Index("ix_items_tags", "tags", postgresql_using="gin"),
        Index(
            "ix_items_search_text",
            "search_text",
            postgresql_using="gin",
            postgresql_ops={"search_text": "gin_trgm_ops"},
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.uuidv7(monotonic=True))
    sku: Mapped[str] = mapped_column(CollatedText)
    name: Mapped[str] = mapped_column(CollatedText)
    description: Mapped[str | None] = mapped_column(CollatedText)
    price: Mapped[Decimal]
    currency: Mapped[str]
    tax_rate: Mapped[Decimal] = mapped_column(Numeric(6, 3), server_default=text("10.5"))
    tags: Mapped[list[str]] = mapped_column(Tags, server_default=text("'{}'"))
    cost: Mapped[Decimal | None]
    notes: Mapped[str | None]
    version: Mapped[int] = mapped_column(server_default=text("1"))
    # A statement's time, not its transaction's: an edit that waited for the row's lock is later
    # than the edit that it waited for.
    created_at: Mapped[datetime] = mapped_column(server_default=func.statement_timestamp())
    updated_at: Mapped[datetime] = mapped_column(
        server_default=func.statement_timestamp(), onupdate=func.statement_timestamp()
    )

    __mapper_args__ = {  # noqa: RUF012 -- SQLAlchemy declares it as no ClassVar
        "version_id_col": version,
        "eager_defaults": True,
        # It serves to search alone, and may be long: no write need bring it back.
        "exclude_properties": {"search_text"},
    }

    def edit(self, changes: Mapping[str, Any]) -> list[str]:
        """Take on new values; return the names of those that really changed."""
        changed = [name for name, value in changes.items() if getattr(self, name) != value]
        for name in changed:
            setattr(self, name, changes[name])
        return changed
