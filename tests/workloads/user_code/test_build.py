"""What a user's code raises is blamed on a key of the study file, whatever its type."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl

from study.config.workloads import Custom
from study.errors import ConfigError, DataError
from study.training.messages import Mistake, OutOfMemory
from study.workloads.user_code.build import build_data, build_module, user_code
from tests.user_code import Data, Net


@pytest.mark.parametrize("kind", [OutOfMemory, Mistake, ValueError, SystemExit])
def test_any_error_of_the_users_code_blames_the_key(kind: type[BaseException]) -> None:
    with pytest.raises(ConfigError, match=rf"^workload: {kind.__name__}: 2 GiB more"), user_code("workload"):
        raise kind("2 GiB more")


@pytest.mark.parametrize("error", [ConfigError("unknown key", "a.b"), DataError("no rows"), KeyboardInterrupt()])
def test_errors_that_are_clear_already_pass_as_they_are(error: BaseException) -> None:
    with pytest.raises(type(error)) as raised, user_code("workload"):
        raise error
    assert raised.value is error


class Needs(Net):
    """Has required arguments, and others."""

    def __init__(self, classes: int, width: int, *layers: int, rate: float = 0.1, names: tuple[str, ...], **more: int):
        super().__init__()


class NeedsFolder(Data):
    def __init__(self, folder: str, batch_size: int) -> None:
        super().__init__(batch_size)


def needing(**changes: object) -> Custom:
    return Custom.model_validate({"module": f"{__name__}:Needs", "data": f"{__name__}:NeedsFolder", **changes})


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "Needs requires classes, width, names: give them here"),
        ({"classes": 2, "width": 3}, "Needs requires names: give it here"),
    ],
)
def test_required_arguments_of_a_module_that_are_not_given(given: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        build_module(needing(module_args=given), 8)
    assert str(raised.value) == f"workload.module_args: {__name__}:{says}"
    assert isinstance(build_module(needing(module_args={"classes": 2, "width": 3, "names": []}), 8), pl.LightningModule)


def test_required_arguments_of_a_data_module_that_are_not_given() -> None:
    with pytest.raises(ConfigError, match=r"^workload\.data_args: .*:NeedsFolder requires folder: give it here$"):
        build_data(needing(), 8)
    assert build_data(needing(data_args={"folder": "x"}), 8).batch_size == 8
