"""Applying: what a file changes in the list, as a set, with the events that tell of it."""

from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    Insert,
    Integer,
    Select,
    Text,
    and_,
    bindparam,
    case,
    cast,
    false,
    func,
    insert,
    literal,
    literal_column,
    not_,
    null,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import array
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.types import Numeric

from pricebook.core.context import current_context
from pricebook.core.outbox import EventRecord
from pricebook.core.tracing import current_traceparent
from pricebook.imports.staging import FIELDS, Stage, item_of, items
from pricebook.items.events import ItemCreated, ItemEvent, ItemPriceChanged, ItemUpdated
from pricebook.items.models import Tags

# What events tell of an item, whether the file has it or not.
_TOLD = frozenset({"sku", "name", "price", "currency", "tags"})

Statement = Select[*tuple[Any, ...]]


def differences(stage: Stage, rows: Statement) -> Statement:
    """Count what would change, and show some of it; nothing is written."""
    candidates = _candidates(stage, rows)
    return _summary(stage, candidates, candidates)


def written(stage: Stage, rows: Statement) -> Statement:
    """Write what differs, with its events; count it, and show some of it."""
    candidates = _candidates(stage, rows)
    source = _held(candidates) if stage.missing else candidates
    changes = _upserted(stage, source).cte("written")
    told = _events(stage, changes).cte("told")
    return _summary(stage, changes, candidates).add_cte(told)


def _candidates(stage: Stage, rows: Statement) -> CTE:
    """Compare with the list: what stays as it is is not even locked.

    MATERIALIZED, since no value is to be looked at before it is known to be one.
    """
    found = rows.cte("rows").prefix_with("MATERIALIZED")
    item = select(items.c.id, *(items.c[name] for name in _shown(stage)))
    known = item_of(item, found, found.c.sku).lateral("known")
    old = [known.c[name].label(f"old_{name}") for name in _shown(stage)]
    new = [
        (found.c[name] if name in stage.columns else known.c[name]).label(f"new_{name}")
        for name in _shown(stage)
    ]
    return (
        select(found.c.line, known.c.id.is_(None).label("is_new"), *old, *new)
        .select_from(found.outerjoin(known, true()))
        .where(or_(known.c.id.is_(None), _differs(stage, known.c, found.c)))
        .order_by(found.c.line)
        .cte("candidates")
        .prefix_with("MATERIALIZED")
    )


def _held(candidates: CTE) -> CTE:
    """Lock the items that are to change: those that are still there."""
    item = item_of(select(items.c.id), candidates, candidates.c.new_sku)
    return (
        select(candidates)
        .select_from(candidates.join(item.with_for_update(key_share=True).lateral("held"), true()))
        .cte("held_candidates")
        .prefix_with("MATERIALIZED")
    )


def _shown(stage: Stage) -> tuple[str, ...]:
    return tuple(name for name in FIELDS if name in stage.columns or name in _TOLD)


def _differs(stage: Stage, old: Any, new: Any) -> ColumnElement[bool]:  # noqa: ANN401 -- columns by name
    return or_(false(), *(old[name].is_distinct_from(new[name]) for name in stage.changing))


def _upserted(stage: Stage, candidates: CTE) -> Any:  # noqa: ANN401 -- an INSERT that returns
    names = [*stage.columns, *stage.missing]
    values = select(*(candidates.c[f"new_{name}"] for name in names))
    new = upsert(items).from_select(names, values.order_by(candidates.c.line))
    changed = {name: new.excluded[name] for name in stage.changing}
    return new.on_conflict_do_update(
        index_elements=[items.c.sku],
        set_=changed | _edited(),
        where=_differs(stage, items.c, new.excluded),
    ).returning(*_returned(stage))


def _edited() -> dict[str, ColumnElement[Any]]:
    return {"version": items.c.version + 1, "updated_at": func.statement_timestamp()}


def _returned(stage: Stage) -> list[ColumnElement[Any]]:
    return [
        literal_column("new.id", items.c.id.type).label("id"),
        literal_column("old.id IS NULL", true().type).label("is_new"),
        *(
            literal_column(f"{age}.{name}", items.c[name].type).label(f"{age}_{name}")
            for name in _shown(stage)
            for age in ("old", "new")
        ),
    ]


def _events(stage: Stage, changes: CTE) -> Insert:
    """Record what `items.service` records for one item, in the same order."""
    is_new, context = changes.c.is_new, current_context()
    facts = union_all(
        _fact(ItemCreated, changes, is_new),
        _fact(ItemUpdated, changes, not_(is_new), changed=_changed(stage, changes)),
        _fact(
            ItemPriceChanged,
            changes,
            and_(not_(is_new), _costs_otherwise(changes)),
            old_price=changes.c.old_price,
            new_price=changes.c.new_price,
            old_currency=changes.c.old_currency,
        ),
    ).lateral("fact")
    actor = literal(context.user_id if context else None, EventRecord.actor_id.type)
    request = literal(context.request_id if context else None, Text)
    trace = literal(current_traceparent(), Text)
    rows = select(facts.c.type, changes.c.id, facts.c.payload, actor, request, trace)
    names = ["type", "subject_id", "payload", "actor_id", "request_id", "traceparent"]
    return insert(EventRecord).from_select(names, rows.select_from(changes.join(facts, true())))


def _fact(
    event: type[ItemEvent],
    changes: CTE,
    is_so: ColumnElement[bool],
    **more: ColumnElement[Any],
) -> Select[str, Any]:
    known: dict[str, ColumnElement[Any]] = {
        "item_id": changes.c.id,
        **{name: changes.c[f"new_{name}"] for name in _TOLD},
        **more,
    }
    payload = [part for name in event.model_fields for part in (name, _as_json(known[name]))]
    return (
        select(
            literal(event.type).label("type"), func.jsonb_build_object(*payload).label("payload")
        )
        .where(is_so)
        .correlate(changes)
    )


def _as_json(value: ColumnElement[Any]) -> ColumnElement[Any]:
    """A decimal number is a text in JSON; see `DecimalOut`."""
    return cast(value, Text) if isinstance(value.type, Numeric) else value


def _changed(stage: Stage, changes: CTE) -> ColumnElement[Any]:
    names: list[ColumnElement[str | None]] = [
        case((_differs_in(changes, name), literal(name, Text)), else_=null())
        for name in stage.changing
    ]
    return func.array_remove(cast(array(names), Tags), null())


def _differs_in(changes: CTE, name: str) -> ColumnElement[bool]:
    return changes.c[f"old_{name}"].is_distinct_from(changes.c[f"new_{name}"])


def _costs_otherwise(changes: CTE) -> ColumnElement[bool]:
    return or_(_differs_in(changes, "price"), _differs_in(changes, "currency"))


def _summary(stage: Stage, changes: CTE, candidates: CTE) -> Statement:
    """Count changes, and show the first `sample_size` of them."""
    is_new = changes.c.is_new
    return select(
        func.count().label("found"),
        func.count().filter(is_new).label("new"),
        func.count().filter(not_(is_new), _costs_otherwise(changes)).label("price_changes"),
        _sample(stage, changes, candidates).label("sample"),
        select(func.count()).select_from(candidates).scalar_subquery().label("candidates"),
    ).select_from(changes)


def _sample(stage: Stage, changes: CTE, candidates: CTE) -> ColumnElement[Any]:
    """Show changes as JSON, in the order of the file."""
    shown = [
        _as_json(changes.c[f"{age}_{name}"]).label(f"{age}_{name}")
        for name in stage.fields
        for age in ("old", "new")
    ]
    lines = candidates.alias("lines")
    # Of the few that are shown, which are the first, since both are in the order of the file.
    line = select(lines.c.line).where(lines.c.new_sku == changes.c.new_sku).scalar_subquery()
    first = (
        select(line.label("line"), changes.c.is_new, *shown)
        .limit(bindparam("sample_size", type_=Integer))
        .subquery("first")
    )
    return select(func.jsonb_agg(func.to_jsonb(first.table_valued()))).scalar_subquery()
