"""`import study` is light, and offers what it says."""

from __future__ import annotations

import subprocess
import sys

import study

HEAVY = ("ray", "torch", "scipy", "plotly", "pandas", "numpy", "pydantic", "rich", "typer")


def test_importing_it_imports_nothing_heavy() -> None:
    code = f"import study, sys; dir(study); print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_loading_and_frames_need_neither_ray_torch_nor_plotly() -> None:
    code = (
        "import study, sys; study.load; study.analyze; study.compare\n"
        "print([name for name in ('ray', 'torch', 'plotly') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    for name in study.__all__:
        assert getattr(study, name) is not None
        assert name in dir(study)
