"""Current prices from gpuhunt's catalog (extra `prices`)."""

from __future__ import annotations

from pathlib import Path

from study.config import yaml_reader
from study.config.price_list import ListPrice
from study.errors import ConfigError

INSTALL = "pip install 'batch-frontier[prices]'"


def market_prices(today: str) -> tuple[ListPrice, ...]:
    """Return the lowest price of each provider for each GPU, on demand and spot; `today` as YYYY-MM-DD.

    Raises ConfigError, one line, if gpuhunt is not installed or its catalog cannot be had.
    """
    try:
        import gpuhunt  # type: ignore[import-not-found]
    except ImportError:
        raise ConfigError(f"needs gpuhunt: {INSTALL}", "--refresh") from None
    try:
        offers = gpuhunt.query(min_gpu_count=1)
    except Exception as error:  # whatever a provider's client or the network raises
        raise ConfigError(f"gpuhunt's catalog cannot be read: {error}", "--refresh") from None
    least: dict[tuple[str, str, str], ListPrice] = {}
    for offer in offers:
        if not offer.gpu_name or not offer.gpu_memory or not offer.price > 0:
            continue
        price = ListPrice(
            gpu_type=f"{offer.gpu_name}-{offer.gpu_memory:g}GB",
            provider=offer.provider,
            purchase="spot" if offer.spot else "on_demand",
            usd_per_device_hour=offer.price / offer.gpu_count,
            source=f"gpuhunt ({offer.instance_name}, {offer.location}, one of {offer.gpu_count})",
            date=today,
        )
        known = least.get(price.kind)
        if known is None or price.usd_per_device_hour < known.usd_per_device_hour:
            least[price.kind] = price
    return tuple(least[kind] for kind in sorted(least))


def prices_yaml(prices: tuple[ListPrice, ...], path: Path) -> str:
    """Return the prices as YAML that `read_prices` reads back; `path` is the file to be written."""
    head = f"# List prices in US dollars per GPU and hour; use them with price.file: {path.name}\n"
    return head + yaml_reader.dump({"prices": [price.model_dump() for price in prices]})
