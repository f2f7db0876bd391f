"""Study files: what is read, and the one line that says what is wrong."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.config.loader import find_config, load_study, shipped_configs, to_yaml
from study.config.schema import StudyConfig
from study.config.template import commented_yaml, starter
from study.errors import ConfigError
from study.planning.trials import make_plan

GOOD = """\
name: x
batch_sizes: [16, 64]
search:
  lr: {low: 1e-3, high: 1}
  samples: 3
budget: {epochs: 3}
"""


def load(tmp_path: Path, text: str, *overrides: str):
    path = tmp_path / "s.yaml"
    path.write_text(text)
    file = load_study(path, overrides)
    with file.naming_places():
        make_plan(file.config)
    return file.config


def test_a_variant_may_clip_and_have_other_betas(tmp_path: Path) -> None:
    variants = "{a: {optimizer: {clip_norm: 1}}, b: {optimizer: {kind: sgd, betas: null}}}"
    config = load(tmp_path, f"{GOOD}optimizer: {{kind: adamw, betas: [0.9, 0.95]}}\nvariants: {variants}\n")
    clipped, plain = (config.variant(name).optimizer for name in "ab")
    assert (clipped.betas, clipped.clip_norm) == ((0.9, 0.95), 1)
    assert (plain.kind, plain.betas, plain.clip_norm) == ("sgd", None, None)


def test_numbers_are_read_as_yaml_1_2_has_them(tmp_path: Path) -> None:
    config = load(tmp_path, GOOD.replace("name: x", "name: no"))
    assert config.search.lr.low == 1e-3  # PyYAML alone reads text
    assert config.name == "no"  # and here a boolean


@pytest.mark.parametrize(
    ("change", "line", "says"),
    [
        (("samples", "sampels"), 5, "search.sampels: unknown key; allowed: lr, samples,"),
        (("samples", "sampels"), 5, "(did you mean samples?)"),
        (("samples: 3", "samples: 0"), 5, "search.samples: should be greater than or equal to 1; got 0"),
        (("samples: 3", "samples: x"), 5, 'search.samples: should be a valid integer; got "x"'),
        (("[16, 64]", "[16, 16]"), 1, "batch_sizes lists a size twice"),
        (("[16, 64]", "[]"), 2, "batch_sizes: must list at least 1"),
        (("[16, 64]", "[16, 5000]"), 2, "batch_sizes: 5000 is above the 1197 training samples"),
        (("1e-3", ".nan"), 4, "search.lr.low: should be a finite number"),
        (("low: 1e-3", "low: 3"), 4, "low must be below high"),
        (("{low: 1e-3, high: 1}", "[0.1, -1]"), 4, "search.lr.1: should be greater than 0"),
        (("{epochs: 3}", "{}"), 6, "budget: give exactly one of epochs and updates"),
        (("name: x", "name: x\nname: y"), 2, "name: given twice"),
        (("name: x", "nmae: x"), 1, "nmae: unknown key"),
        (
            ("{epochs: 3}", "{epochs: 3}\nworkload: {kind: text, width: 64, heads: 5}"),
            7,
            "workload: heads must divide width, and 5 does not divide 64",
        ),
        (
            ("{epochs: 3}", "{epochs: 3}\nworkload: {kind: text, width: 16384}"),
            7,
            "workload: depth 2 of width 16,384 are 6,442,450,944 weights",
        ),
        (
            ("{epochs: 3}", "{epochs: 3}\nworkload: {kind: text, val_fraction: 0.6, test_fraction: 0.4}"),
            7,
            "workload: val_fraction and test_fraction, 0.6 and 0.4, leave nothing to train on",
        ),
        (
            ("{epochs: 3}", "{epochs: 3}\nworkload: {kind: text, text_bytes: 999, context: 500}"),
            7,
            "workload.context: 500 leaves 1 samples of a text of 999 bytes",
        ),
        (
            (
                "{epochs: 3}",
                "{epochs: 3}\nworkload: {kind: text, text_bytes: 9999}\nvariants: {a: {workload: {context: 65}}}",
            ),
            8,
            "variants.a.workload: has 65 tokens in a sample, the study 64",
        ),
        (
            ("{epochs: 3}", "{epochs: 3}\nworkload: {kind: text}"),
            7,
            "workload.text_bytes: is required where the text cannot be read",
        ),
        (
            ("{epochs: 3}", "{epochs: 3}\noptimizer: {clip_norm: 1, clip_value: 1}"),
            7,
            "give clip_norm or clip_value, not",
        ),
        (("{epochs: 3}", "{epochs: 3}\noptimizer: {clip_norm: 0}"), 7, "optimizer.clip_norm: should be greater than 0"),
        (("{epochs: 3}", "{epochs: 3}\noptimizer: {gradient_clip_val: 1}"), 7, "(did you mean clip_norm?)"),
        (("{epochs: 3}", "{epochs: 3}\noptimizer: {max_grad_norm: 1}"), 7, "(did you mean clip_norm?)"),
        (
            ("{epochs: 3}", "{epochs: 3}\noptimizer: {eps: 1e-8}"),
            7,
            "betas and eps are of adamw and lamb; sgd has none",
        ),
        (("{epochs: 3}", "{epochs: 3}\noptimizer: {kind: lars, betas: [0.9, 0.95]}"), 7, "lamb; lars has none"),
        (
            ("{epochs: 3}", "{epochs: 3}\noptimizer: {kind: adamw, betas: [0.9, 1]}"),
            7,
            "optimizer.betas.1: should be less than 1; got 1",
        ),
        (
            ("{epochs: 3}", "{epochs: 3}\noptimizer: {kind: adamw, betas: [0.9]}"),
            7,
            "optimizer.betas.1: is required",
        ),
        (
            ("{epochs: 3}", "{epochs: 3}\noptimizer: {kind: adamw, betas: [0.9, 0.9, 0.9]}"),
            7,
            "optimizer.betas: Tuple should have at most 2 items",
        ),
        (
            (
                "{epochs: 3}",
                "{epochs: 3}\noptimizer: {kind: adamw, betas: [0.9, 0.95]}\nvariants: {a: {optimizer: {kind: sgd}}}",
            ),
            8,
            "variants.a.optimizer: betas and eps are of adamw and lamb; sgd has none",
        ),
        (("{epochs: 3}", "{epochs: 3}\noptimizer: {kind: lamb, eps: 0}"), 7, "optimizer.eps: should be greater than 0"),
        (
            ("{epochs: 3}", "{epochs: 3}\nworkload: {kind: digts}"),
            7,
            "must be one of digits, contrastive, teacher, cifar10, cifar100, mnist, fashion_mnist, datasets, "
            "text, custom; "
            "got digts (did you mean digits?)",
        ),
        (
            ("{epochs: 3}", "{epochs: 3}\nworkload: {kind: contrastive, model: mlp}"),
            7,
            "workload.model: unknown key; allowed: kind, width, temperature,",
        ),
        (("{epochs: 3}", "{epochs: 3}\nworkload: {kind: contrastive, probe_labels: 2000}"), 7, "the 1197 training"),
        (("{epochs: 3}", "{epochs: 3}\nworkload: {kind: cifar10}"), 7, "workload.path: is required"),
        (
            ("{epochs: 3}", "{epochs: 3}\nworkload: {kind: cifar10, path: x, depth: 18}"),
            7,
            "workload.depth: must be 6n + 2, such as 20, 32, 44, 56 or 110; got 18",
        ),
        (
            ("{epochs: 3}", "{epochs: 3}\nworkload: {kind: cifar10, path: x, images: 9, val_samples: 9}"),
            7,
            "workload.val_samples: 9 is all of the 9 images",
        ),
        (
            ("{epochs: 3}", "{epochs: 3}\nvariants: {a/b: {}}"),
            7,
            "variants.a/b: a variant's name is up to 40 letters, digits or any of + - . _, the first none of - . _",
        ),
        (("{epochs: 3}", "{epochs: 3}\nworkload: {model: convnt}"), 7, "(did you mean convnet?)"),
        (("{epochs: 3}", "{epochs: 3}\nlimits: {usd: 5}"), 1, "limits.usd is given, but neither price.usd_per_device"),
        (("{epochs: 3}", "{epochs: 3}\nlimits: {wall_h: 0}"), 7, "limits.wall_h: should be greater than 0; got 0"),
        (("{epochs: 3}", "{epochs: 3}\nhardware: {placement: PACK}"), 7, "must be one of pack, spread; got PACK"),
        (("{epochs: 3}", "{epochs: 3}\nhardware: {world_size: 3}"), 2, "16 is not divisible by world size 3"),
        (("{epochs: 3}", "{epochs: 3}\nworkload: {module: a, data: 'b:C'}"), 7, "must be written package.module:Class"),
        (
            ("{epochs: 3}", "{epochs: 3}\nworkload: {module: 'a.b.Net', data: 'b:C'}"),
            7,
            'must be written package.module:Class; got "a.b.Net" (did you mean a.b:Net?)',
        ),
        (("name: x", "name: &a x\nsearch: *a"), 2, "aliases (*a) are not allowed"),
        (("name: x", "name: [x"), 2, "not YAML"),
    ],
)
def test_mistakes_are_one_line_with_the_place(tmp_path: Path, change: tuple[str, str], line: int, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, GOOD.replace(*change))
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{tmp_path / 's.yaml'}:{line}: ")
    assert says in text


@pytest.mark.parametrize("text", ["", "[1, 2]", "just words", "[" * 5000, "\x00"])
def test_no_study_file_at_all(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        load(tmp_path, text)


def numbers(schema: Any, at: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every number of a schema with its place."""
    parts = schema.items() if isinstance(schema, dict) else enumerate(schema) if isinstance(schema, list) else ()
    for key, part in parts:
        if isinstance(part, dict) and part.get("type") in ("integer", "number"):
            yield f"{at}/{key}", part
        yield from numbers(part, f"{at}/{key}")


def test_every_number_has_a_least_and_a_most() -> None:
    found = dict(numbers(StudyConfig.model_json_schema()))
    assert len(found) > 50
    for at, number in found.items():
        assert number.keys() & {"minimum", "exclusiveMinimum"}, at
        assert number.keys() & {"maximum", "exclusiveMaximum"}, at


def test_set_overrides_and_is_blamed(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD, "search.samples=4", "hardware.world_size=[1, 2]").search.samples == 4
    with pytest.raises(ConfigError, match=r"^--set: search.samples: should be greater"):
        load(tmp_path, GOOD, "search.samples=0")
    with pytest.raises(ConfigError, match=r"write it as key.path=value"):
        load(tmp_path, GOOD, "search.samples")


def test_names_of_variants_may_be_those_of_the_papers(tmp_path: Path) -> None:
    names = ("+LR", "grow-larger-rate", "SB", "+LR+GBN")
    config = load(tmp_path, GOOD + "variants:\n" + "".join(f"  {name}: {{}}\n" for name in names))
    assert config.variant_names == names


@settings(max_examples=200, deadline=None)
@given(
    key=st.sampled_from(["name", "batch_sizes", "search", "budget", "workload", "hardware", "price", "confirm", "zz"]),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=6,
    ),
)
def test_any_value_is_a_plan_or_a_plan_error(tmp_path_factory: pytest.TempPathFactory, key: str, value: object) -> None:
    import yaml

    data = yaml.safe_load(GOOD) | {key: value}
    path = tmp_path_factory.mktemp("any") / "s.yaml"
    path.write_text(yaml.safe_dump(data, allow_unicode=True))
    said = ""
    try:
        make_plan(load_study(path).config)
    except ConfigError as error:
        said = str(error)
    assert "\n" not in said


def test_every_shipped_config_is_a_plan_and_survives_a_round_trip(tmp_path: Path) -> None:
    assert "quickstart" in shipped_configs()
    for name, path in shipped_configs().items():
        config = load_study(path).config
        assert config.name == name
        assert make_plan(config).n_confirm > 0
        assert load(tmp_path, to_yaml(config)) == config


def test_the_starter_file_means_what_it_says(tmp_path: Path) -> None:
    config = starter("mine")
    assert load(tmp_path, commented_yaml(config)) == config


def test_configs_are_found_by_path_with_or_without_suffix_and_by_bare_name(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(GOOD)
    assert find_config(str(tmp_path / "mine")) == find_config(str(tmp_path / "mine.yaml")) == tmp_path / "mine.yaml"
    assert find_config("quickstart").name == "quickstart.yaml"
    with pytest.raises(ConfigError, match=r"did you mean quickstart\?"):
        find_config("quikstart")


VARIANTS = """\
name: x
batch_sizes: [16, 64]
search: {lr: [0.1]}
budget: {epochs: 3}
variants:
  SB: {batch_sizes: [16]}
  LB:
    batch_sizes: [64]
    search:
      lr_rule: sqrt
      base_batch: 16
"""


def test_a_variant_is_the_study_with_some_keys_changed(tmp_path: Path) -> None:
    config = load(tmp_path, VARIANTS)
    small, large = (config.variant(name) for name in config.variant_names)
    assert (small.batch_sizes, small.search.lr_rule) == ((16,), "none")
    assert (large.batch_sizes, large.search.lr_rule, large.search.lr) == ((64,), "sqrt", (0.1,))
    assert load(tmp_path, to_yaml(config)) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("lr_rule: sqrt", "lr_rul: sqrt"), r"10: variants.LB.search.lr_rul: unknown key.*did you mean lr_rule"),
        (("      base_batch: 16\n", ""), r"variants.LB.search: base_batch goes with lr_rule"),
        (("batch_sizes: [64]", "hardware: {world_size: 2}"), r"variants.LB.hardware cannot vary; allowed: batch_sizes"),
        (("  LB:", "  L/B:"), r"variants"),
    ],
)
def test_a_mistake_in_a_variant_is_reported_at_its_line(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, VARIANTS.replace(*change))
