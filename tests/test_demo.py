"""The demo list: items that the API would take, the same ones each time."""

from pydantic import TypeAdapter

from pricebook.demo import TRADES, demo_items
from pricebook.items.schemas import ItemIn


def test_every_demo_item_is_a_valid_item_with_a_sku_of_its_own() -> None:
    items = TypeAdapter(list[ItemIn]).validate_python(list(demo_items()))
    assert len({item.sku for item in items}) == 3_000
    assert all(0 < (item.cost or 0) < item.price for item in items if item.currency != "JPY")


def test_the_list_is_the_same_on_every_machine() -> None:
    assert list(demo_items(100)) == list(demo_items(100))


def test_it_has_several_trades_and_currencies_and_prices_below_a_cent() -> None:
    items = list(demo_items())
    assert {tag for item in items for tag in item["tags"]} >= TRADES.keys()
    assert len({item["currency"] for item in items}) > 3
    assert any(len(item["price"].partition(".")[2]) == 4 for item in items)
