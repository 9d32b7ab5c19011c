"""What an import makes of the list: new, changed and unchanged items, and the events of each."""

from decimal import Decimal

import pytest
from sqlalchemy import select, text

from pricebook.items.models import Item
from pricebook.jobs.status import Status

HEAD = "sku,name,price,currency\n"
ALL = ["sku", "name", "description", "price", "currency", "tax_rate", "tags", "cost", "notes"]


async def test_new_items_are_added_in_the_order_of_the_file(do_import, items):
    job = await do_import(HEAD + "B-2,Nail,0.05,EUR\nA-1,Hammer,12.5,chf\n")
    assert job.status == Status.SUCCEEDED, job.error
    assert job.result == {
        "mode": "apply",
        "applied": True,
        "rows": 2,
        "new": 2,
        "changed": 0,
        "unchanged": 0,
        "refused": 0,
        "price_changes": 0,
        "refusals": [],
        "sample": [
            {
                "line": 2,
                "sku": "B-2",
                "change": "new",
                "fields": {
                    "name": [None, "Nail"],
                    "price": [None, "0.0500"],
                    "currency": [None, "EUR"],
                },
            },
            {
                "line": 3,
                "sku": "A-1",
                "change": "new",
                "fields": {
                    "name": [None, "Hammer"],
                    "price": [None, "12.5000"],
                    "currency": [None, "CHF"],
                },
            },
        ],
        "columns": ["sku", "name", "price", "currency"],
        "unknown_columns": [],
        "ignored_columns": [],
        "encoding": "utf-8",
        "delimiter": "comma",
        "has_errors_csv": False,
    }
    found = await items()
    assert list(found) == ["B-2", "A-1"]
    hammer = found["A-1"]
    assert (hammer.name, hammer.price, hammer.currency) == ("Hammer", Decimal("12.5"), "CHF")
    assert (hammer.tax_rate, hammer.tags, hammer.version) == (Decimal("10.5"), [], 1)


async def test_many_rows_keep_their_order_over_all_parts_of_the_file(do_import, items):
    rows = [f"{number * 7919 % 50_000:05},Nail {number},1,EUR" for number in range(50_000)]
    rows[30_000] = rows[30_000].replace(",Nail", ",\u00a0Nail")
    job = await do_import(HEAD + "\n".join(rows))
    assert (job.status, job.result["new"], len(job.result["sample"])) == ("succeeded", 50_000, 20)
    found = await items()
    assert list(found) == [row.split(",")[0] for row in rows]
    assert list(found.values())[30_000].name == "Nail 30000"


async def test_only_the_columns_of_the_file_change(do_import, make_item, items):
    kept = {"description": "Forged", "tags": ["tools"], "cost": Decimal(5), "notes": "Reorder"}
    await make_item(sku="H-1", name="Hammer", price=Decimal("12.5"), **kept)
    job = await do_import("SKU;Price\nH-1;9,99\n", decimal="comma")
    assert job.result["changed"] == job.result["price_changes"] == 1
    assert job.result["sample"] == [
        {
            "line": 2,
            "sku": "H-1",
            "change": "changed",
            "fields": {"price": ["12.5000", "9.9900"]},
        }
    ]
    item = (await items())["H-1"]
    assert (item.price, item.name, item.version) == (Decimal("9.99"), "Hammer", 2)
    assert {name: getattr(item, name) for name in kept} == kept
    assert item.updated_at > item.created_at


async def test_an_empty_cell_clears_what_may_be_empty(do_import, make_item, items):
    await make_item(
        sku="H-1",
        description="Forged",
        tax_rate=Decimal(20),
        tags=["a"],
        cost=Decimal(1),
        notes="Reorder",
    )
    job = await do_import("sku,description,tax_rate,tags,cost,notes\nH-1,,,,,\n")
    assert job.result["changed"] == 1
    item = (await items())["H-1"]
    found = (item.description, item.tax_rate, item.tags, item.cost, item.notes)
    assert found == (None, Decimal("10.5"), [], None, None)


async def test_a_lone_apostrophe_is_an_empty_text_which_is_not_none(do_import, make_item, items):
    await make_item(sku="H-1", description=None, notes="Reorder")
    await do_import("sku,description,notes\nH-1,',\"'=1+1\"\n")
    item = (await items())["H-1"]
    assert (item.description, item.notes) == ("", "=1+1")


async def test_cells_that_are_not_guarded_keep_their_apostrophes(do_import, items):
    await do_import(HEAD + "H-1,'-Hammer,1,EUR\n", guarded=False)
    assert (await items())["H-1"].name == "'-Hammer"


async def test_unchanged_rows_write_nothing(do_import, session, recorded):
    sent = HEAD + "".join(f"H-{number},Hammer,{number},EUR\n" for number in range(100))
    await do_import(sent)
    physical = select(text("(ctid, xmin, xmax, version)::text")).select_from(Item.__table__)
    before = (await session.scalars(physical.order_by(Item.id))).all()
    events = len(await recorded())
    await session.commit()
    job = await do_import(sent)
    assert (job.result["unchanged"], job.result["changed"]) == (100, 0)
    assert (await session.scalars(physical.order_by(Item.id))).all() == before
    # The end of the job alone.
    assert [event.type for event in (await recorded())[events:]] == ["job.finished"]


async def test_a_dry_run_tells_the_same_and_changes_nothing(do_import, make_item, items, recorded):
    await make_item(sku="H-1", name="Hammer")
    sent = HEAD + "H-1,Mallet,12.5,EUR\nN-1,Nail,1,USD\nH-2,,1,EUR\n"
    dry = await do_import(sent, mode="dry-run")
    assert (dry.status, list(await items())) == ("succeeded", ["H-1"])
    assert [event.type for event in await recorded()] == ["job.finished"]
    assert dry.result["has_errors_csv"]
    wet = await do_import(sent, skip_refused=True)
    assert wet.result == {**dry.result, "mode": "apply", "applied": True}
    assert dry.result["applied"] is False
    assert list(await items()) == ["H-1", "N-1"]


async def test_with_one_refusal_nothing_changes(do_import, make_item, items, recorded, errors_of):
    await make_item(sku="H-1", name="Hammer")
    job = await do_import(HEAD + "H-1,Mallet,12.5,EUR\nN-1,Nail,free,EUR\n")
    assert (job.status, job.error) == (
        "failed",
        "1 of 2 rows is refused; nothing was changed.",
    )
    assert (job.result["applied"], job.result["changed"], job.result["refused"]) == (False, 1, 1)
    assert job.result["refusals"] == [
        {
            "line": 3,
            "column": "price",
            "value": "free",
            "detail": "must be a decimal number, such as 12.50",
        }
    ]
    assert (await items())["H-1"].name == "Hammer"
    assert [event.type for event in await recorded()] == ["job.finished"]
    assert "N-1,Nail,free,EUR,3," in await errors_of(job)


@pytest.mark.parametrize("lacking", ["name", "price", "currency"])
async def test_new_items_need_the_columns_that_no_item_lacks(do_import, make_item, items, lacking):
    await make_item(sku="H-1")
    cells = {"sku": ("H-1", "N-1"), "name": ("Nail",) * 2, "price": "12", "currency": ("EUR",) * 2}
    del cells[lacking]
    columns = [(name, *values) for name, values in cells.items()]
    job = await do_import("\n".join(",".join(row) for row in zip(*columns, strict=True)))
    assert job.result["refusals"] == [
        {
            "line": 3,
            "column": "sku",
            "value": "N-1",
            "detail": f"is not in the list, and the file has no “{lacking}” for a new item",
        }
    ]
    assert (await items())["H-1"].version == 1


async def test_a_file_of_nothing_but_skus_changes_nothing(do_import, make_item):
    await make_item(sku="H-1")
    job = await do_import("sku\nH-1\n")
    assert (job.status, job.result["unchanged"]) == ("succeeded", 1)


async def test_events_are_those_of_single_requests(api, editor, do_import, items, jobs, recorded):
    """The same change, once over the API and once from a file, leaves the same facts."""
    client = api.as_(editor)
    old = {"name": "Hammer", "price": "12.5", "currency": "EUR", "tags": ["b", "a"], "cost": "1"}
    new = {**old, "name": "Mallet", "tags": ["c"], "price": "9.99", "notes": "Reorder"}
    dear = {**old, "currency": "CHF"}
    skus = {"single": ("S-1", "S-2"), "file": ("F-1", "F-2")}
    for sku in skus["single"]:
        assert (await client.post("/v1/items", json={"sku": sku, **old})).status_code == 201
    for sku, fields in zip(skus["single"], (new, dear), strict=True):
        found = (await items())[sku]
        assert (await client.patch(f"/v1/items/{found.id}", json=fields)).status_code == 200
    single = await recorded()
    await do_import(file_of((skus["file"][0], old), (skus["file"][1], old)))
    await do_import(file_of((skus["file"][0], new), (skus["file"][1], dear)))
    told = [event for event in (await recorded())[len(single) :] if event.type != "job.finished"]
    ids = {item.sku: item.id for item in (await items()).values()}
    renamed = {}
    for ours, theirs in zip(skus["file"], skus["single"], strict=True):
        renamed |= {ours: theirs, str(ids[ours]): str(ids[theirs])}
    assert [
        (event.type, {name: as_text(renamed, one) for name, one in event.payload.items()})
        for event in told
    ] == [(event.type, event.payload) for event in single]
    assert {event.actor_id for event in told} == {editor.id}
    assert {event.request_id for event in told} == {job.request_id for job in await jobs()}
    assert all(event.subject_id == ids[event.payload["sku"]] for event in told)


def as_text(renamed, value):
    return renamed.get(value, value) if isinstance(value, str) else value


def file_of(*rows):
    lines = [",".join(ALL)]
    for sku, item in rows:
        cells = {"sku": sku, **item, "tags": ";".join(item["tags"])}
        lines.append(",".join(cells.get(name, "") for name in ALL))
    return "\n".join(lines)


async def test_an_sku_that_stands_twice_is_refused_each_time(do_import, items):
    rows = "A,Nail,1,EUR\nB,Nail,1,EUR\nA,Nail,2,EUR\nC,Nail,x,EUR\nC,Nail,1,EUR\nA,Nail,3,EUR\n"
    job = await do_import(HEAD + rows, skip_refused=True)
    assert list(await items()) == ["B"]
    found = [(one["line"], one["column"], one["detail"]) for one in job.result["refusals"]]
    assert found == [
        (2, "sku", "stands in line 4 as well"),
        (4, "sku", "stands in line 2 as well"),
        (5, "price", "must be a decimal number, such as 12.50"),
        (5, "sku", "stands in line 6 as well"),
        (6, "sku", "stands in line 5 as well"),
        (7, "sku", "stands in line 2 as well"),
    ]
    assert job.result["refused"] == 5


async def test_a_file_that_turns_out_not_to_be_utf8_is_windows_1252(do_import, items):
    rows = [f"{number},Nail,1,EUR" for number in range(20_000)] + ["U,Größe,1,EUR"]
    job = await do_import((HEAD + "\n".join(rows)).encode("windows-1252"))
    assert (job.status, job.result["encoding"]) == ("succeeded", "windows-1252")
    assert (await items())["U"].name == "Größe"


async def test_a_file_that_cannot_be_read_to_its_end_changes_nothing(do_import, items):
    rows = [f"{number},Nail,1,EUR" for number in range(20_000)] + ["U,Größe,1,EUR"]
    sent = (HEAD + "\n".join(rows)).encode("windows-1252")
    job = await do_import(sent, encoding="utf-8")
    assert job.status == "failed"
    assert job.error.startswith("Line 20002 is not utf-8")
    assert await items() == {}


async def test_a_file_that_is_gone_is_asked_for_again(ask, finish, files):
    job = await ask(HEAD)
    await files.delete([job.params["file"]])
    job = await finish(job)
    assert (job.status, job.error) == ("failed", "The file that was sent is gone; send it again.")


async def test_a_file_without_rows_changes_nothing(do_import):
    job = await do_import(HEAD)
    assert (job.status, job.result["rows"], job.result["unchanged"]) == ("succeeded", 0, 0)


async def test_a_viewer_may_not_import(do_import, viewer, items):
    job = await do_import(HEAD + "A,Nail,1,EUR\n", owner=viewer)
    assert job.status == "failed"
    assert await items() == {}


async def test_what_imports_of_the_same_columns_run_is_compiled_once(do_import, runner):
    """Else a worker that imports small files all day would grow by what each leaves behind."""
    compiled = runner._tools.database.engine.sync_engine._compiled_cache
    for price in range(2):
        await do_import(f"sku,name,price,currency\nH-1,Hammer,{price},EUR\n", mode="apply")
    known = len(compiled)
    await do_import("sku,name,price,currency\nH-1,Hammer,2,EUR\n", mode="apply")
    assert known > 0
    assert len(compiled) == known
