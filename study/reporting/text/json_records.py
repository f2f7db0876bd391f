"""Records as strict JSON, which has no NaN and no infinity."""

from __future__ import annotations

import json
import math
from typing import Any


def strict_json(value: Any) -> Any:
    """Return a value that strict JSON can hold: non-finite numbers become None, NumPy's floats plain ones."""
    if isinstance(value, dict):
        return {str(key): strict_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict_json(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


def json_text(record: dict[str, Any], indent: int | None = None) -> str:
    """Return a record as JSON text, without a newline at its end."""
    return json.dumps(strict_json(record), indent=indent, ensure_ascii=False, allow_nan=False)
