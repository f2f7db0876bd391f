"""Strategies for study files from the schema: legal keys with legal and illegal values, and rarely anything else."""

from __future__ import annotations

from functools import cache
from typing import Any

from hypothesis import strategies as st

from study.config.schema import VARIABLE, StudyConfig

_SCHEMA = StudyConfig.model_json_schema()
SECRET = "https://me:hunter2@host/?token=hunter2"
# Numbers that a study could have, or that someone might try.
_ODD_NUMBERS: list[Any] = [
    0, -1, 10**9, 10**9 + 1, 2**31, 2**63, 2**64, -(10**99), 10**99, -0.0, 0.5, -0.5, 1e-320, 5e-324, 1e308, 1e400,
    float("nan"), float("-inf"),
]  # fmt: skip
_USUAL = {"name": ["study", "1e3", "no", "2026-01-01"], "path": ["data"], "file": ["prices.yaml"],
          "module": ["net:Net", "no.such:Net", "net:Nothing"], "data": ["digits:Digits", "digits:Nothing"],
          "gpu_type": ["H100-SXM-80GB", "L4-24GB", "H100"], "provider": ["aws", "gcp"]}  # fmt: skip

_junk = st.recursive(
    st.none() | st.booleans() | st.sampled_from(_ODD_NUMBERS) | st.integers() | st.floats() | st.text(max_size=12)
    | st.sampled_from(["x" * 5000, "\x1b[2J", "a\nb", "\x00", "é\u202e\u2028", SECRET]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | st.just("a"), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip


@cache
def one_in(n: int) -> st.SearchStrategy[bool]:
    """Draw True once in `n` times."""
    return st.sampled_from([False] * (n - 1) + [True])


@st.composite
def values(draw: st.DrawFn, schema: dict[str, Any], key: str = "") -> Any:
    """Draw a value that a part of the schema allows, or rarely one that it does not."""
    if draw(one_in(40)):
        return draw(_junk)
    if "$ref" in schema:
        schema = _SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
    if options := schema.get("oneOf", schema.get("anyOf")):
        return draw(values(draw(st.sampled_from(options)), key))
    if "const" in schema or "enum" in schema:
        return draw(st.sampled_from(schema.get("enum", [schema.get("const")])))
    if "prefixItems" in schema:
        return [draw(values(item, key)) for item in schema["prefixItems"]]
    if schema.get("type") == "array":
        items = values(schema["items"], key)
        return draw(st.lists(items, min_size=schema.get("minItems", 0), max_size=3, unique_by=repr))
    if schema.get("type") == "object":
        return draw(sections(schema, key))
    return draw(_scalars(schema, key))


def _scalars(schema: dict[str, Any], key: str) -> st.SearchStrategy[Any]:
    kind = schema.get("type")
    if kind == "integer":
        low, high = schema.get("minimum", 0), schema.get("maximum", 10**9)
        usual = [n for n in (1, 2, 3, 4, 8, 16, 64, 300) if low <= n <= high] or [low]
        return st.sampled_from(usual * 3 + [high]) | st.integers(low, high)
    if kind == "number":
        high = schema.get("maximum", schema.get("exclusiveMaximum", 10.0))
        return st.sampled_from([0.1, 0.25, 0.5, 0.9]) | st.floats(schema.get("minimum", 0.0), high)
    if kind == "boolean":
        return st.booleans()
    return st.none() if kind == "null" else st.sampled_from(_USUAL.get(key, ["word"]))


@st.composite
def sections(draw: st.DrawFn, schema: dict[str, Any], key: str = "") -> dict[str, Any]:
    """Draw the required keys, and some others."""
    if key == "variants":
        known = {name: _SCHEMA["properties"][name] for name in VARIABLE}
        part = {"properties": known, "type": "object"}
        return draw(st.dictionaries(st.sampled_from(["A", "+LR", "b.1"]), sections(part), max_size=2))
    made = {}
    for name, field in schema.get("properties", {}).items():
        left_out = draw(one_in(40)) if name in schema.get("required", ()) else not draw(one_in(4))
        if not left_out:
            made[name] = draw(values(field, name))
    if draw(one_in(20)):
        made[draw(st.sampled_from([*schema.get("properties", {}), "kind"])) + draw(st.sampled_from("_x"))] = draw(_junk)
    return made


@st.composite
def study_files(draw: st.DrawFn, good: list[dict[str, Any]]) -> Any:
    """Draw a good study file with some sections generated, or one that is generated whole."""
    if draw(one_in(8)):
        return draw(_junk)
    made = draw(sections(_SCHEMA))
    if draw(one_in(3)):
        return made
    few = st.lists(st.sampled_from([*made, "name"]), min_size=1, max_size=3, unique=True)
    return draw(st.sampled_from(good)) | {key: made[key] for key in draw(few) if key in made}
