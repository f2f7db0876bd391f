"""Texts as bytes: what is read, and which byte is in which part."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from study.config.workloads import Text
from study.errors import ConfigError, DataError
from study.workloads.data.discovery import find_files, with_sample_counts
from study.workloads.data.splits import text
from study.workloads.data.text import help_topics, read_text
from tests.conftest import make_config

EVERY_BYTE = bytes(range(256)) * 3


def of(path: Path, context: int = 8, **changes: object) -> Text:
    """A workload whose length is known."""
    config = Text(kind="text", path=str(path), context=context)
    return config.model_copy(update={"text_bytes": len(read_text(config)), **changes})


def test_every_byte_but_the_first_is_predicted_once_in_its_order(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(EVERY_BYTE)
    splits = text(of(tmp_path / "a.txt"))
    parts = (splits.train, splits.val, splits.test)
    labels = torch.cat([part.y.flatten() for part in parts])
    inputs = torch.cat([part.x.flatten() for part in parts])
    # 767 bytes to predict are 95 samples of 8, and 7 left over.
    assert bytes(labels.tolist()) == EVERY_BYTE[1:761]
    assert bytes(inputs.tolist()) == EVERY_BYTE[:760]
    assert [len(part) for part in parts] == [77, 9, 9]
    assert splits.classes == 256


def test_fewer_samples_to_train_on_leave_the_other_parts_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(EVERY_BYTE)
    whole, few = text(of(tmp_path / "a.txt")), text(of(tmp_path / "a.txt", train_samples=5))
    assert torch.equal(few.train.x, whole.train.x[:5])
    for one, other in ((few.val, whole.val), (few.test, whole.test)):
        assert torch.equal(one.x, other.x)
        assert torch.equal(one.y, other.y)
    with pytest.raises(
        ConfigError, match=r"^workload\.train_samples: is 78, but the training part of the text has 77$"
    ):
        text(of(tmp_path / "a.txt", train_samples=78))


@given(
    context=st.integers(1, 40),
    length=st.integers(1, 5000),
    val=st.floats(0.01, 0.45),
    test=st.floats(0.01, 0.45),
)
def test_the_parts_follow_from_sizes_alone(context: int, length: int, val: float, test: float) -> None:
    config = Text(kind="text", context=context, val_fraction=val, test_fraction=test, text_bytes=length)
    if length <= 3 * context:
        with pytest.raises(ConfigError, match="training, validation and test need one each"):
            config.part_sizes()
        return
    try:
        sizes = config.part_sizes()
    except ConfigError:
        assert (length - 1) // context < 20  # a share of few samples is rounded up to one
        return
    assert min(sizes) >= 1
    assert 0 <= length - 1 - sum(sizes) * context < context
    for size, share in zip(sizes[1:], (val, test), strict=True):
        assert size == 1 or share * sum(sizes) - 1 < size <= share * sum(sizes)


def test_files_of_a_folder_are_read_by_their_paths_and_hidden_ones_are_not(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.txt", "a/b/c", ".git/config", "a/.hidden"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode("utf-16"))
    found = [name.encode("utf-16") for name in ("a/b/c", "a/z.txt", "b.txt")]
    assert read_text(Text(kind="text", path=str(tmp_path))) == b"\n\n".join(found)


def test_the_help_topics_are_english_and_say_nothing_twice() -> None:
    words = help_topics().decode()
    assert "The simple form" in words
    assert 300_000 < len(words) < 600_000  # as in Python 3.10 to 3.13
    paragraphs = words.split("\n\n")
    assert len(paragraphs) == len(set(paragraphs))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("none", r"workload\.path: .*none: there is no such file or folder"),
        ("empty", r"workload\.path: .*empty: holds no file"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=f"^{says}$"):
        find_files(Text(kind="text", path=str(tmp_path / name)))


def test_a_text_of_another_length_than_was_planned_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(EVERY_BYTE)
    with pytest.raises(DataError, match=r"^workload\.text_bytes: is 700, but .*a\.txt has 768 bytes$"):
        text(of(tmp_path / "a.txt", text_bytes=700))
    with pytest.raises(DataError, match=r"^workload\.text_bytes: is 700, but the help topics of this Python have"):
        find_files(Text(kind="text", text_bytes=700))


def test_the_length_is_counted_for_the_study_and_each_variant(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(EVERY_BYTE)
    workload = {"kind": "text", "path": str(tmp_path / "a.txt"), "context": 8}
    config = make_config(workload=workload, batch_sizes=[8], variants={"plain": {}, "wide": {"workload": {"width": 8}}})
    counted = with_sample_counts(config)
    assert counted.workload.text_bytes == 768
    assert counted.variant("wide").workload.text_bytes == 768
    assert counted.variant("wide").workload.width == 8
