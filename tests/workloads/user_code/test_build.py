"""What a user's code raises is blamed on a key of the study file, whatever its type."""

from __future__ import annotations

import pytest

from study.errors import ConfigError, DataError
from study.training.messages import Mistake, OutOfMemory
from study.workloads.user_code.build import user_code


@pytest.mark.parametrize("kind", [OutOfMemory, Mistake, ValueError, SystemExit])
def test_any_error_of_the_users_code_blames_the_key(kind: type[BaseException]) -> None:
    with pytest.raises(ConfigError, match=rf"^workload: {kind.__name__}: 2 GiB more"), user_code("workload"):
        raise kind("2 GiB more")


@pytest.mark.parametrize("error", [ConfigError("unknown key", "a.b"), DataError("no rows"), KeyboardInterrupt()])
def test_errors_that_are_clear_already_pass_as_they_are(error: BaseException) -> None:
    with pytest.raises(type(error)) as raised, user_code("workload"):
        raise error
    assert raised.value is error
