"""Price lists: that of the package, a user's that takes precedence, and one-line errors."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from study.config.gpuhunt_prices import market_prices, prices_yaml
from study.config.loader import load_study
from study.config.price_list import SHIPPED, read_prices
from study.errors import ConfigError

STUDY = """\
name: x
batch_sizes: [16, 64]
search: {lr: [0.1]}
budget: {epochs: 3}
price: {%s}
"""
USERS = """\
prices:
  - {gpu_type: H100-SXM-80GB, provider: us, purchase: on_demand, usd_per_device_hour: 1.5, source: contract,
     date: "2026-02-03"}
"""


def price(folder: Path, text: str) -> Any:
    path = folder / "s.yaml"
    path.write_text(STUDY % text)
    return load_study(path).config.price


def test_every_shipped_price_is_sourced_and_dated() -> None:
    shipped = read_prices()
    assert len({listed.kind for listed in shipped}) == len(shipped) > 10
    for listed in shipped:
        assert listed.source.startswith("https://")
        assert date(2024, 1, 1) < date.fromisoformat(listed.date)
        assert 0.1 < listed.usd_per_device_hour < 20
    assert "list prices" in SHIPPED.read_text().lower()


def test_a_gpu_type_is_looked_up_and_the_study_keeps_what_was_found(tmp_path: Path) -> None:
    found = price(tmp_path, "gpu_type: H100-SXM-80GB, provider: aws")
    assert found.usd_per_device_hour == 6.88
    for word in ("aws.amazon.com", "p5.48xlarge", "2026-11-09", "on_demand"):
        assert word in found.source


def test_the_users_file_takes_precedence(tmp_path: Path) -> None:
    (tmp_path / "users.yaml").write_text(USERS)
    found = price(tmp_path, "gpu_type: H100-SXM-80GB, file: users.yaml")
    assert (found.usd_per_device_hour, found.file) == (1.5, None)
    assert "contract" in found.source
    listed = read_prices(tmp_path / "users.yaml")
    assert listed[0].provider == "us"
    assert len(listed) == len(read_prices()) + 1


def test_a_price_that_is_given_is_not_looked_up(tmp_path: Path) -> None:
    found = price(tmp_path, "gpu_type: whatever, usd_per_device_hour: 9")
    assert (found.usd_per_device_hour, found.source) == (9, None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gpu_type: H100-SXM-80G", "s.yaml:5: price.gpu_type: no on_demand price of H100-SXM-80G is listed (did you"),
        ("gpu_type: A10-24GB, purchase: spot", "price.gpu_type: no spot price of A10-24GB is listed"),
        ("gpu_type: A10-24GB, provider: aws", "no on_demand price of A10-24GB by aws is listed"),
        ("gpu_type: A10-24GB, purchase: rent", "price.purchase: must be one of on_demand, spot, reserved; got rent"),
        ("gpu_type: H100-SXM-80GB", "price.provider: several ask for H100-SXM-80GB, in USD an hour: aws 6.88"),
        ("provider: aws", "provider and file go with gpu_type"),
        ("gpu_type: x, file: none.yaml", "none.yaml: No such file"),
    ],
)
def test_a_missing_price_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        price(tmp_path, text)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("1.5", "-1"), "users.yaml:2: prices.0.usd_per_device_hour: Input should be greater than 0"),
        (("1.5", "true"), "users.yaml:2: prices.0.usd_per_device_hour: Input should be a valid number"),
        (("1.5", ".nan"), "users.yaml:2: prices.0.usd_per_device_hour: should be a finite number"),
        (("1.5", "1e7"), "users.yaml:2: prices.0.usd_per_device_hour: Input should be less than or equal to 1000000"),
        (("gpu_type", "gpu"), "users.yaml:2: prices.0.gpu: unknown key; allowed: gpu_type, provider,"),
        (("2026-02-03", "yesterday"), "users.yaml:3: prices.0.date: String should match"),
        (("prices:", "price:"), "users.yaml:1: price: unknown key; allowed: prices (did you mean prices?)"),
        ((USERS, USERS + USERS.removeprefix("prices:\n")), "H100-SXM-80GB us on_demand is priced twice"),
        ((USERS, "[1"), "users.yaml:1: not YAML"),
        ((USERS, "- 3"), "users.yaml:1: Input should be"),
    ],
)
def test_a_bad_list_is_one_line_with_its_place(tmp_path: Path, change: tuple[str, str], says: str) -> None:
    (tmp_path / "users.yaml").write_text(USERS.replace(*change))
    with pytest.raises(ConfigError) as error:
        read_prices(tmp_path / "users.yaml")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def offer(provider: str, usd: float, count: int = 1, spot: bool = False, gpu: str | None = "H100") -> SimpleNamespace:
    return SimpleNamespace(
        provider=provider, price=usd, gpu_count=count, spot=spot, gpu_name=gpu, gpu_memory=80.0, instance_name="big",
        location="here",
    )  # fmt: skip


def fake_gpuhunt(monkeypatch: pytest.MonkeyPatch, module: object) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gpuhunt", module)


def test_a_refresh_keeps_the_least_of_each_provider_and_reads_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offers = [
        offer("a", 24.0, 8),
        offer("a", 4.0),
        offer("a", 1.0, spot=True),
        offer("b", 2.0),
        offer("b", 1.0, gpu=None),
    ]
    fake_gpuhunt(monkeypatch, SimpleNamespace(query=lambda min_gpu_count: offers))
    found = market_prices("2026-05-06")
    assert [(p.provider, p.purchase, p.usd_per_device_hour) for p in found] == [
        ("a", "on_demand", 3.0),
        ("a", "spot", 1.0),
        ("b", "on_demand", 2.0),
    ]
    (tmp_path / "p.yaml").write_text(prices_yaml(found, tmp_path / "p.yaml"))
    assert read_prices(tmp_path / "p.yaml")[:3] == found
    assert (found[0].gpu_type, found[0].date) == ("H100-80GB", "2026-05-06")


def test_a_refresh_says_how_to_install_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpuhunt(monkeypatch, None)
    with pytest.raises(ConfigError, match=r"--refresh: needs gpuhunt: pip install 'batch-frontier\[prices\]'"):
        market_prices("2026-05-06")

    def fails(min_gpu_count: int) -> list[object]:
        raise OSError("no\nroute")

    fake_gpuhunt(monkeypatch, SimpleNamespace(query=fails))
    with pytest.raises(ConfigError) as error:
        market_prices("2026-05-06")
    assert str(error.value) == "--refresh: gpuhunt's catalog cannot be read: no\\nroute"
