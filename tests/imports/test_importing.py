"""What an import makes of the list: new, changed and unchanged items, and the events of each."""

from decimal import Decimal

from pricebook.jobs.status import Status

HEAD = "sku,name,price,currency\n"


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
