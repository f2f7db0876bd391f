"""A logger for modules that log to their own: it accepts every call and keeps nothing."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from tempfile import TemporaryDirectory
from typing import Any


class SilentLogger:
    """The `self.logger` of a user's module in a trial, with the methods of Lightning's Logger. Its folder is empty, and
    is removed with it.
    """

    @property
    def name(self) -> str:
        """A constant name, since users make paths of it."""
        return "study"

    @property
    def version(self) -> int:
        """A constant version, since users make paths of it."""
        return 0

    @property
    def save_dir(self) -> str:
        """A temporary folder for what a module writes beside its logs."""
        return self._folder.name

    @property
    def log_dir(self) -> str:
        """The same folder, as TensorBoard's and CSV's loggers call it."""
        return self.save_dir

    @cached_property
    def _folder(self) -> TemporaryDirectory[str]:
        return TemporaryDirectory(prefix="study-log-", ignore_cleanup_errors=True)

    @property
    def experiment(self) -> Any:
        """Stands in for a SummaryWriter, a run of W&B or a client of MLflow."""
        return _Nothing(self)

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Drop them: the ledger keeps what a study needs."""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Drop them: the study file and the ledger have what a study needs."""

    def __getattr__(self, name: str) -> Any:
        """Answer any other method of a logger, such as `log_image`, `watch` or `log_table`. Python's own protocols get
        an AttributeError.
        """
        if name.startswith("_"):
            raise AttributeError(name)
        return _Nothing(self)


class _Nothing:
    """Any attribute, item or call of it is the same; as a path, it is the logger's folder."""

    def __init__(self, logger: SilentLogger) -> None:
        self._logger = logger

    def __getattr__(self, name: str) -> _Nothing:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> _Nothing:
        return self

    def __getitem__(self, key: Any) -> _Nothing:
        return self

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def __contains__(self, key: Any) -> bool:
        return False

    def __len__(self) -> int:
        return 0

    def __bool__(self) -> bool:
        return True

    def __fspath__(self) -> str:
        return self._logger.save_dir

    def __str__(self) -> str:
        return self._logger.name

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __enter__(self) -> _Nothing:
        return self

    def __exit__(self, *error: object) -> None:
        pass
