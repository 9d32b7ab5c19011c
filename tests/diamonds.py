"""A real price list: 53,940 diamonds."""

import csv
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def read_diamonds() -> list[dict[str, Any]]:
    """Read the file of plotnine without importing it, which would need all that it plots with."""
    package = find_spec("plotnine")
    assert package is not None
    assert package.submodule_search_locations is not None
    path = Path(package.submodule_search_locations[0], "data", "diamonds.csv")
    with path.open(newline="") as file:
        return [_as_item(number, row) for number, row in enumerate(csv.DictReader(file), start=1)]


def _as_item(number: int, row: dict[str, str]) -> dict[str, Any]:
    return {
        "sku": f"DIAMOND-{number:05}",
        "name": f"{row['cut']} diamond of {row['carat']} carat",
        "description": f"Colour {row['color']}, {row['x']} x {row['y']} x {row['z']} mm",
        "price": row["price"],
        "currency": "USD",
        "tags": [row["cut"], f"colour {row['color']}", f"clarity {row['clarity']}"],
    }
