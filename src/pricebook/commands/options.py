"""Options that several commands take."""

from typing import Annotated

import typer

Url = Annotated[
    str | None,
    typer.Option(
        help="The API; else PRICEBOOK_URL, the `pricebook up` that runs here, "
        "or PRICEBOOK_PUBLIC_URL."
    ),
]
