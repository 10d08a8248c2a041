import math

import pytest
import torch
import torch.nn.functional as F

from mae_lightning.tasks import TokenizerTraining
from mae_lightning.tasks.tokenizer import CodeUse
from mae_lightning.weights.opening import open_weights

IMAGES = {"image_size": (8, 12), "num_channels": 2, "mean": (0.5, 0.4), "std": (0.2, 0.3), "global_batch_size": 256}


def task(**changes) -> TokenizerTraining:
    torch.manual_seed(0)
    return TokenizerTraining(**({"stride": 4, "num_codes": 5, "dim": 4} | IMAGES | changes))


def test_code_use_is_the_perplexity_of_valid_images():
    use = CodeUse(4)
    codes = torch.tensor([[[0, 0]], [[1, 2]], [[3, 3]]])
    use.update(codes, torch.tensor([True, True, False]))
    entropy = -(0.5 * math.log(0.5) + 2 * 0.25 * math.log(0.25))
    assert float(use.compute()) == pytest.approx(math.exp(entropy))


def test_figures_are_of_hard_codes_and_valid_images():
    one = task()
    logged: dict = {}
    one.log_dict = lambda figures, **_: logged.update(figures)
    images = torch.randint(256, (3, 2, 8, 12), dtype=torch.uint8)
    one.validation_step({"image": images, "valid": torch.tensor([True, True, False])}, 0)
    one.on_validation_epoch_end()
    errors = []
    for image in images[:2].float() / 255:
        weights = F.one_hot(one.tokenizer.codes(image[None]), 5).permute(0, 3, 1, 2).float()
        errors.append(float((one.tokenizer.decode(weights)[0].detach() - image).square().mean()))
    assert float(logged["val/loss"]) == pytest.approx(sum(errors) / 2, rel=1e-4)
    assert float(logged["val/psnr"]) == pytest.approx(-10 * math.log10(sum(errors) / 2), rel=1e-4)


def test_features_are_shares_of_codes():
    one = task()
    images = torch.randint(256, (2, 2, 8, 12), dtype=torch.uint8)
    shares = one.features(images)
    codes = one.tokenizer.codes(images.float() / 255)
    for image in range(2):
        assert shares[image].tolist() == pytest.approx([float((codes[image] == code).sum()) / 6 for code in range(5)])


def test_a_checkpoint_is_not_taken_for_an_encoder(tmp_path):
    one = task()
    content = {"state_dict": one.state_dict()}
    one.on_save_checkpoint(content)
    torch.save(content, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=r"is a tokenizer, not an encoder; its run's tokenizer.safetensors is for"):
        open_weights(tmp_path / "last.ckpt")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": (8, 10)}, r"^images of 8 x 10 are no multiple of the tokenizer's stride 4$"),
        ({"temperature": 0.0}, r"^temperature 0 must be above 0 and at most 1$"),
        ({"stride": 3, "image_size": (9, 9)}, r"must be a power of 2"),
    ],
)
def test_nonsense_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        task(**changes)
