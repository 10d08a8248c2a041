from random import Random

import pytest
import torch

from mae_lightning.data.mixing import Mixing, draw_box


def batch(size=6):
    images = torch.rand(size, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    return images, torch.eye(size), torch.ones(size, dtype=torch.bool)


def test_mixup_blends_images_and_targets_by_one_share():
    images, targets, valid = batch()
    mixed, soft = Mixing(0.8, 0.0)(images, targets, valid, Random(3))
    share = Random(3).betavariate(0.8, 0.8)
    for row in range(6):
        torch.testing.assert_close(mixed[row], share * images[row] + (1 - share) * images[5 - row])
        assert soft[row, row].item() == pytest.approx(share)
        assert soft[row, 5 - row].item() == pytest.approx(1 - share)


def test_cutmix_share_is_the_area_that_stayed():
    images, targets, valid = batch()
    for seed in range(20):
        mixed, soft = Mixing(0.0, 1.0)(images, targets, valid, Random(seed))
        stayed = (mixed[0] == images[0]).all(dim=0)
        assert torch.equal(mixed[0][:, ~stayed], images[5][:, ~stayed])
        assert soft[0, 0].item() == pytest.approx(stayed.float().mean().item())
        assert soft.sum(dim=1).tolist() == pytest.approx([1.0] * 6)


def test_a_row_whose_partner_does_not_count_stays_as_it_is():
    images, targets, valid = batch()
    valid[5] = False
    for mixing in (Mixing(0.8, 0.0), Mixing(0.0, 1.0)):
        mixed, soft = mixing(images, targets, valid, Random(1))
        torch.testing.assert_close(mixed[0], images[0])
        torch.testing.assert_close(soft[0], targets[0])
        assert not torch.equal(mixed[1], images[1])


def test_both_take_turns_and_the_same_chance_gives_the_same_batch():
    images, targets, valid = batch()
    kinds = set()
    for seed in range(20):
        first = Mixing()(images, targets, valid, Random(seed))
        again = Mixing()(images, targets, valid, Random(seed))
        assert torch.equal(first[0], again[0])
        kinds.add(bool((first[0][0] == images[0]).any()))  # a cut leaves pixels as they were
    assert kinds == {True, False}


def test_nothing_asked_for_changes_nothing():
    images, targets, valid = batch()
    mixed, soft = Mixing(0.0, 0.0)(images, targets, valid, Random(0))
    assert mixed is images
    assert soft is targets


def test_boxes_have_the_area_and_stay_inside():
    random = Random(0)
    areas = []
    for _ in range(500):
        top, bottom, left, right = draw_box(32, 16, 0.25, random)
        assert 0 <= top <= bottom <= 32
        assert 0 <= left <= right <= 16
        areas.append((bottom - top) * (right - left))
    assert max(areas) == 16 * 8


def test_negative_alpha_is_an_error():
    with pytest.raises(ValueError, match="must not be below 0"):
        Mixing(-0.1, 0.0)
