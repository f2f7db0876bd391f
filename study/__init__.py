"""study: which batch size, on how many GPUs, should I pay for?

    import study

    results = study.load("runs/quickstart")
    results.frontier()

docs/api.md describes every name.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = (
    "ClusterError",
    "ConfigError",
    "DataError",
    "DiskError",
    "LedgerError",
    "StudyComparison",
    "StudyError",
    "StudyRecommendation",
    "StudyResults",
    "TableResults",
    "__version__",
    "analyze",
    "compare",
    "load",
    "run",
)

if TYPE_CHECKING:
    from study.api.comparing import StudyComparison as StudyComparison
    from study.api.comparing import compare as compare
    from study.api.results import StudyRecommendation as StudyRecommendation
    from study.api.results import StudyResults as StudyResults
    from study.api.results import load as load
    from study.api.running import run as run
    from study.api.tables import TableResults as TableResults
    from study.api.tables import analyze as analyze
    from study.errors import ClusterError as ClusterError
    from study.errors import ConfigError as ConfigError
    from study.errors import DataError as DataError
    from study.errors import DiskError as DiskError
    from study.errors import LedgerError as LedgerError
    from study.errors import StudyError as StudyError
else:
    # Everything is imported when it is first used: `import study` takes milliseconds.
    _MODULES = {
        "study.api.comparing": ("StudyComparison", "compare"),
        "study.api.results": ("StudyRecommendation", "StudyResults", "load"),
        "study.api.running": ("run",),
        "study.api.tables": ("TableResults", "analyze"),
        "study.errors": ("ClusterError", "ConfigError", "DataError", "DiskError", "LedgerError", "StudyError"),
    }
    _HOMES = {name: module for module, names in _MODULES.items() for name in names}

    def __getattr__(name):
        if name not in _HOMES:
            raise AttributeError(f"module 'study' has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return value

    def __dir__():
        return sorted({*globals(), *_HOMES})
