"""Modes come back one by one."""

import pytest
from torch import nn

from study.training.eval_mode import eval_mode


def test_a_mixed_model_is_mixed_again_even_after_an_error() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout())
    model[1].eval()  # a frozen layer

    def fail() -> None:
        with eval_mode(model):
            assert not any(module.training for module in model.modules())
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        fail()
    assert [module.training for module in model.modules()] == [True, True, False, True]
