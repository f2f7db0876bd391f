"""A price list on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from study.config.price_list import ListPrice
from study.safe_text import printable


def print_prices(prices: Sequence[ListPrice], console: Console) -> None:
    """A row for each price, by GPU type, cheapest first."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in ("GPU type", "purchase", "provider", "USD an hour", "date", "source"):
        table.add_column(name, justify="right" if name == "USD an hour" else "left", no_wrap=name != "source")
    for price in sorted(prices, key=lambda price: (price.gpu_type, price.purchase, price.usd_per_device_hour)):
        cells = (price.gpu_type, price.purchase, price.provider, f"{price.usd_per_device_hour:.2f}", price.date)
        table.add_row(*(Text(printable(cell), overflow="fold") for cell in (*cells, price.source)))
    console.print(table)
    console.print(
        "List prices per GPU, of the dates shown; what you pay may differ. A file of your own wins: --prices FILE, or "
        "price.file in a study.",
        markup=False,
        highlight=False,
    )
