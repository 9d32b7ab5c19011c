"""A realistic price list of several trades, the same on every machine."""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from random import Random
from typing import Any

from sqlalchemy import select

from pricebook.core.database import open_database
from pricebook.core.settings import Settings
from pricebook.items.batch import apply_batch
from pricebook.items.models import Item
from pricebook.items.schemas import MAX_OPERATIONS, Batch

_SEED = 20_261_001


@dataclass(frozen=True)
class Trade:
    """What the goods of one trade have in common."""

    code: str
    tax_rate: str
    makers: tuple[str, ...]
    tags: tuple[str, ...]
    sentence: str


@dataclass(frozen=True)
class Good:
    """One kind of thing, the forms it comes in, and its range of prices in euros."""

    trade: Trade
    kind: str
    varieties: tuple[str, ...]
    sizes: tuple[str, ...]
    lowest: Decimal
    highest: Decimal


TRADES = {
    "grocery": Trade(
        "GRO",
        "5.5",
        ("Alder & Sons", "Bonnat", "Casa Rivas", "Dorset Dairy", "Eiderhof", "Fjellmat"),
        ("food", "pantry"),
        "Keep in a cool, dry place.",
    ),
    "hardware": Trade(
        "HDW",
        "20",
        ("Ironbridge", "Kessler", "Nordhammer", "Okumura", "Tolosa", "Wexford Tools"),
        ("tools", "workshop"),
        "Made for daily use on site.",
    ),
    "electronics": Trade(
        "ELE",
        "20",
        ("Aurelia", "Helvox", "Kite Audio", "Lumen Works", "Nakama", "Pixelfort"),
        ("office", "home"),
        "Two years of warranty.",
    ),
    "books": Trade(
        "BOK",
        "5.5",
        ("Lantern Press", "Éditions du Quai", "Seewald Verlag", "Two Rivers Books"),
        ("reading", "gifts"),
        "Printed on paper from certified forests, sewn and not glued.",
    ),
    "garden": Trade(
        "GAR",
        "10",
        ("Beechcroft", "Clos Vert", "Gartenlust", "Hollyhock", "Midori"),
        ("outdoor", "seasonal"),
        "Ready for the next season.",
    ),
}

# trade | kind | varieties | sizes | euros from | to
_GOODS = """
grocery | olive oil | organic, mild, extra virgin, unfiltered | 250 ml, 500 ml, 750 ml, 3 l | 6 | 24
grocery | ground coffee | dark roast, decaffeinated, organic | 250 g, 500 g, 1 kg | 4.50 | 16
grocery | basmati rice | white, brown, organic | 500 g, 1 kg, 5 kg | 1.80 | 9
grocery | rye bread | sliced, sourdough, seeded | 500 g, 750 g, 1 kg | 2.20 | 5.20
grocery | mountain cheese | young, aged, smoked | 200 g, 400 g, whole wheel | 3.90 | 29
grocery | fruit jam | blackcurrant, apricot, bitter orange, quince | 220 g, 340 g | 2.40 | 6.90
grocery | dark chocolate | 70 %, 85 %, salted, hazelnut | 80 g, 100 g, 200 g | 1.50 | 6.40
hardware | claw hammer | fibreglass, hickory, steel | 450 g, 570 g, 680 g | 9 | 42
hardware | hex bolt | galvanised, stainless, brass | M6 x 40, M8 x 60, M10 x 80 | 0.04 | 0.90
hardware | wood screw | galvanised, stainless, brass | 3 x 30, 4 x 50, 5 x 70 | 0.02 | 0.45
hardware | cordless drill | compact, hammer, angle | 12 V, 18 V, 36 V | 59 | 329
hardware | spirit level | aluminium, magnetic, laser | 40 cm, 60 cm, 120 cm | 11 | 74
hardware | hand saw | fine-toothed, universal, folding | 350 mm, 500 mm, 550 mm | 12 | 52
hardware | socket set | metric, imperial, combined | 24 pieces, 46 pieces, 94 pieces | 24 | 189
electronics | USB-C cable | braided, flat, magnetic | 1 m, 2 m, 3 m | 4.90 | 39
electronics | headphones | wireless, noise-cancelling, studio | black, white, sand | 29 | 379
electronics | monitor | curved, matt, portable | 24 inch, 27 inch, 32 inch | 149 | 899
electronics | keyboard | mechanical, silent, split | QWERTY, AZERTY, QWERTZ | 39 | 249
electronics | desk lamp | dimmable, folding, clip-on | 5 W, 9 W, 12 W | 19 | 129
electronics | portable SSD | rugged, encrypted, slim | 500 GB, 1 TB, 2 TB, 4 TB | 69 | 429
books | atlas of rivers | revised, illustrated, pocket | paperback, hardcover | 19 | 69
books | field guide to birds | revised, regional, waterproof | paperback, spiral-bound | 12 | 39
books | history of bread | annotated, illustrated, abridged | paperback, hardcover | 14 | 32
books | cookbook for two | vegetarian, seasonal, quick | paperback, hardcover | 13 | 34
books | primer of bookkeeping | revised, annotated, students' | paperback, e-book | 11 | 29
garden | terracotta pot | glazed, frost-proof, hanging | 12 cm, 20 cm, 30 cm, 50 cm | 2.90 | 49
garden | pruning shears | bypass, anvil, left-handed | small, medium, large | 14 | 79
garden | lavender | dwarf, white, hardy | 9 cm pot, 2 l pot, tray of 12 | 3.20 | 12
garden | tomato seeds | early, cherry, beefsteak | 20 seeds, 50 seeds, 100 seeds | 1.20 | 4.80
garden | garden hose | reinforced, expandable, flat | 15 m, 25 m, 50 m | 19 | 89
garden | potting compost | peat-free, universal, acid | 20 l, 40 l, 70 l | 4.90 | 15
"""

# Most of a list is in one currency. Yen have no smaller unit.
_CURRENCIES = ("EUR",) * 12 + ("USD",) * 4 + ("GBP",) * 3 + ("CHF",) * 2 + ("SEK", "PLN", "JPY")
_PER_EURO = {"SEK": Decimal(11), "PLN": Decimal("4.3"), "JPY": Decimal(165)}
_MORE_TAGS = ("bestseller", "new", "clearance", "eco", "imported", "local", "bulk")
_NOTES = (
    "The supplier wants two weeks' notice of a change.",
    "Margin agreed with purchasing; ask before any discount.",
    "The maker discontinues it next year.",
    "Counted weekly.",
    None,
)


def demo_items(count: int = 3000) -> Iterator[dict[str, Any]]:
    """Yield `count` items as the API takes them; the same ones each time."""
    random = Random(_SEED)  # noqa: S311 -- a price list, not a secret
    goods = [_good(line) for line in _GOODS.strip().splitlines()]
    for number in range(1, count + 1):
        yield _item(random, random.choice(goods), number)


async def load(settings: Settings) -> int:
    """Add the demo items that are not there yet, and return how many those were."""
    items = list(demo_items())
    async with (
        open_database(settings, "pricebook-demo") as database,
        database.sessions.begin() as session,
    ):
        skus = select(Item.sku).where(Item.sku.in_([item["sku"] for item in items]))
        known = set(await session.scalars(skus))
        new = [{"op": "create", "item": item} for item in items if item["sku"] not in known]
        for first in range(0, len(new), MAX_OPERATIONS):
            batch = Batch.model_validate({"operations": new[first : first + MAX_OPERATIONS]})
            await apply_batch(session, batch, is_match_required=False)
    return len(new)


def _good(line: str) -> Good:
    trade, kind, varieties, sizes, lowest, highest = line.split(" | ")
    return Good(
        TRADES[trade],
        kind,
        tuple(varieties.split(", ")),
        tuple(sizes.split(", ")),
        Decimal(lowest),
        Decimal(highest),
    )


def _item(random: Random, good: Good, number: int) -> dict[str, Any]:
    trade_name = next(name for name, trade in TRADES.items() if trade is good.trade)
    maker, variety, size = map(random.choice, (good.trade.makers, good.varieties, good.sizes))
    currency = random.choice(_CURRENCIES)
    euros = good.lowest + (good.highest - good.lowest) * random.randint(0, 1000) / 1000
    tags = random.sample((*good.trade.tags, *_MORE_TAGS), random.randint(1, 3))
    return {
        "sku": f"{good.trade.code}-{number:05}",
        "name": f"{maker} {variety} {good.kind}, {size}",
        "description": f"{good.kind.capitalize()} by {maker}: {variety}, {size}. "
        f"{good.trade.sentence}",
        "price": _price(euros, currency),
        "currency": currency,
        "tax_rate": good.trade.tax_rate,
        "tags": [trade_name, *sorted(tags)],
        "cost": _price(euros * random.randint(45, 80) / 100, currency),
        "notes": random.choice(_NOTES),
    }


def _price(euros: Decimal, currency: str) -> str:
    """Write a price to the cent, and what costs less than one to the hundredth of a cent."""
    amount = euros * _PER_EURO.get(currency, Decimal(1))
    if currency == "JPY":
        return str(max(amount.quantize(Decimal(1)), Decimal(1)))
    return str(amount.quantize(Decimal("0.01") if amount >= 1 else Decimal("0.0001")))
