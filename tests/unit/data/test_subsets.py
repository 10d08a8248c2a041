from dataclasses import replace

import numpy as np
import pytest

from mae_lightning.data import ShardDataModule
from mae_lightning.data.sources import open_source
from mae_lightning.data.subsets import hold_out, labelled_part, of_classes

LABELS = np.array([0] * 40 + [1] * 20 + [2] * 3)[np.random.RandomState(0).permutation(63)]


def counts(rows):
    return np.bincount(LABELS[rows], minlength=3).tolist()


def test_a_fraction_takes_every_class_alike_and_at_least_one():
    assert counts(labelled_part(LABELS, 0.1, seed=0)) == [4, 2, 1]
    assert counts(labelled_part(LABELS, 1.0, seed=0)) == [40, 20, 3]


def test_a_number_a_class():
    assert counts(labelled_part(LABELS, 3, seed=0)) == [3, 3, 3]


def test_smaller_parts_lie_inside_larger_ones_and_depend_on_the_seed():
    small, large = labelled_part(LABELS, 0.1, seed=4), labelled_part(LABELS, 0.5, seed=4)
    assert set(small) < set(large)
    assert np.all(np.diff(small) > 0)
    assert set(labelled_part(LABELS, 0.1, seed=5)) != set(small)


def test_hold_out_parts_the_rows_and_leaves_each_class_something_to_fit():
    fit, held = hold_out(LABELS, 0.2, seed=0)
    assert sorted([*fit, *held]) == list(range(63))
    assert counts(held) == [8, 4, 1]
    assert len(hold_out(np.zeros(100, np.int64), 0.07, seed=0)[1]) == 7
    assert np.bincount(np.array([0, 0, 1])[hold_out(np.array([0, 0, 1]), 0.9, seed=0)[0]]).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: labelled_part(LABELS, 0.0, 0), "label fraction 0 must be above 0"),
        (lambda: labelled_part(LABELS, 4, 0), "4 labels a class: class 2 has 3"),
        (lambda: labelled_part(np.array([0, -1]), 0.5, 0), "samples without a label"),
        (lambda: hold_out(LABELS, 1.0, 0), "hold-out 1 must be between 0 and 1"),
        (lambda: hold_out(np.array([0, 1]), 0.5, 0), "every class has only one"),
    ],
)
def test_what_cannot_be_is_one_line(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_data_module_trains_on_a_part_and_validates_on_what_is_held_out():
    data = ShardDataModule("fashion_mnist", image_size=32, hold_out=0.1, label_fraction=0.1, seed=1)
    sizes = {split: len(source.manifest) for split, source in data.sources.items()}
    assert sizes == {"train": 450, "val": 500, "test": 1000}
    places = [set(data.sources[split].manifest.place.tolist()) for split in ("train", "val")]
    assert not places[0] & places[1]
    assert data.num_classes == 10
    assert np.bincount(data.sources["train"].manifest.label).tolist() == [45] * 10
    with pytest.raises(ValueError, match="exclude each other"):
        ShardDataModule("fashion_mnist", image_size=32, label_fraction=0.1, labels_per_class=5)


def test_some_classes_keep_their_names_and_places_and_are_numbered_anew():
    whole, data = (
        open_source("fashion_mnist", "train"),
        ShardDataModule("fashion_mnist", image_size=28, classes="8,0-2"),
    )
    part = data.sources["train"]
    assert data.class_names == tuple(whole.class_names[number] for number in (8, 0, 1, 2))
    assert data.num_classes == 4
    assert np.bincount(part.manifest.label).tolist() == [500] * 4
    assert np.bincount(data.sources["val"].manifest.label).tolist() == [100] * 4
    before = whole.manifest.label[np.isin(whole.manifest.label, [8, 0, 1, 2])]
    assert np.array([8, 0, 1, 2])[part.manifest.label].tolist() == before.tolist()
    rows = [whole.manifest.row_of(place) for place in part.manifest.place[:20].tolist()]
    assert whole.manifest.label[rows].tolist() == before[:20].tolist()
    assert part.manifest.digest != whole.manifest.digest


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("0-10", "classes '0-10': fashion_mnist has no class 10; its classes are 0 to 9"),
        ("0,3,2-4", "classes '0,3,2-4': class 3 is there twice"),
        ("0;1", "classes '0;1': '0;1' is no number and no range; write 0-5 or 0,3,7-9"),
        ("5-2", "'5-2' is no number and no range"),
    ],
)
def test_classes_that_cannot_be_are_one_line(classes, message):
    with pytest.raises(ValueError, match=message):
        of_classes({"train": open_source("fashion_mnist", "train")}, classes)


def test_classes_need_labels_and_samples():
    whole = open_source("fashion_mnist", "train")
    without = replace(whole, class_names=None, manifest=replace(whole.manifest, label=whole.manifest.label * 0 - 1))
    with pytest.raises(ValueError, match=r"^classes 0-1: fashion_mnist has no labels to choose by$"):
        of_classes({"train": without}, "0-1")
    few = replace(whole, manifest=whole.manifest.select(np.flatnonzero(whole.manifest.label == 3)))
    with pytest.raises(ValueError, match="fashion_mnist has no sample of class 0"):
        of_classes({"train": few}, "0-1")
    assert of_classes({"train": whole, "predict": without}, "0-1")["predict"] is without
    with pytest.raises(ValueError, match="no sample of the classes that were asked for"):
        of_classes({"train": whole, "val": few}, "0-1")
