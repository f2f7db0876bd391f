"""List prices of rented GPUs: those of the package, and a user's file that takes precedence."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from study.config import yaml_reader
from study.config.sections import MOST_USD_PER_DEVICE_HOUR, Price, Purchase, Section
from study.errors import ConfigError, did_you_mean

SHIPPED = Path(__file__).with_name("prices.yaml")
Word = Annotated[str, Field(min_length=1)]


class ListPrice(Section):
    """The price of one provider for one GPU and hour."""

    gpu_type: Word = Field(description="model and memory, e.g. H100-SXM-80GB")
    provider: Word
    purchase: Purchase
    usd_per_device_hour: float = Field(gt=0, le=MOST_USD_PER_DEVICE_HOUR)
    source: Word = Field(description="the public list, and what of it")
    date: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$", description="when the list said so")

    @property
    def kind(self) -> tuple[str, str, str]:
        """GPU type, provider and purchase: the key of a price within a list."""
        return self.gpu_type, self.provider, self.purchase


class PriceList(Section):
    """The content of a file of prices."""

    prices: tuple[ListPrice, ...]


def read_prices(path: Path | None = None) -> tuple[ListPrice, ...]:
    """Return the prices of the user's file, then those of the package that the file does not list.

    Raises ConfigError, one line that names file, line and key, for a file that is no price list.
    """
    shipped = _read(SHIPPED)
    if path is None:
        return shipped
    of_user = _read(path)
    kinds = {price.kind for price in of_user}
    return of_user + tuple(price for price in shipped if price.kind not in kinds)


def priced(price: Price, folder: Path) -> Price:
    """Return the price with its figure and source looked up, where the study names a GPU type instead.

    `price.file` is relative to `folder`. The result no longer needs a list: a study keeps the price it ran under.
    Raises ConfigError, blaming a key of `price`, if the file is no price list, or if no price or several are meant.
    """
    if price.usd_per_device_hour is not None or price.gpu_type is None:
        return price
    try:
        of_user = _read(folder / price.file) if price.file else ()
    except ConfigError as error:
        raise error.with_key("price.file") from None
    for listed in (of_user, _read(SHIPPED)):
        meant = [one for one in listed if _is_meant(one, price)]
        if meant:
            found = _only(meant)
            source = f"{found.source}, {found.provider}, {found.purchase}, list price of {found.date}"
            return price.model_copy(
                update={"usd_per_device_hour": found.usd_per_device_hour, "source": source, "file": None}
            )
    known = sorted({one.gpu_type for one in (*of_user, *_read(SHIPPED))})
    hint = did_you_mean(price.gpu_type, known)
    by = f" by {price.provider}" if price.provider else ""
    raise ConfigError(
        f"no {price.purchase} price of {price.gpu_type}{by} is listed{hint}; there are {', '.join(known)}",
        "price.gpu_type",
    )


def _is_meant(listed: ListPrice, price: Price) -> bool:
    same = (listed.gpu_type, listed.purchase) == (price.gpu_type, price.purchase)
    return same and price.provider in (None, listed.provider)


def _only(meant: Sequence[ListPrice]) -> ListPrice:
    if len(meant) > 1:
        asked = ", ".join(f"{one.provider} {one.usd_per_device_hour:g}" for one in meant)
        raise ConfigError(f"several ask for {meant[0].gpu_type}, in USD an hour: {asked}; name one", "price.provider")
    return meant[0]


def _read(path: Path) -> tuple[ListPrice, ...]:
    data, lines = yaml_reader.read(path)
    try:
        listed = PriceList.model_validate_json(json.dumps(data)).prices
    except ValidationError as error:
        errors = error.errors(include_url=False)
        # A misspelt key is also a missing one; report the misspelling.
        first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
        at, message = first["loc"], first["msg"]
        if first["type"] == "extra_forbidden":
            known = list((ListPrice if len(at) > 1 else PriceList).model_fields)
            message = f"unknown key; allowed: {', '.join(known)}{did_you_mean(str(at[-1]), known)}"
        key = ".".join(str(part) for part in at)
        while at and at not in lines:
            at = at[:-1]
        raise ConfigError(f"{path}:{lines.get(at, 1)}: {key + ': ' if key else ''}{message}") from None
    kinds = [one.kind for one in listed]
    for i, kind in enumerate(kinds):
        if kind in kinds[:i]:
            raise ConfigError(f"{path}:{lines['prices', i]}: {' '.join(kind)} is priced twice")
    return listed
