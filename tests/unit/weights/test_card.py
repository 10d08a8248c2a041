import pytest

from mae_lightning.models import NormalizedPixels, TransformerDecoder
from mae_lightning.weights import CARD_KEY, CheckpointCard, describe


def card(**changes) -> CheckpointCard:
    facts = {
        "objective": "mae",
        "encoder": "nano/4",
        "decoder": describe(TransformerDecoder(depth=1, dim=16, num_heads=2)),
        "target": describe(NormalizedPixels()),
        "image_size": (32, 48),
        "num_channels": 5,
        "mean": (0.1, 0.2, 0.3, 0.4, 0.5),
        "std": (1.0,) * 5,
        "package_version": "0.1.0",
    }
    return CheckpointCard(**(facts | changes))


def test_there_and_back():
    assert CheckpointCard.from_checkpoint({CARD_KEY: card().to_dict()}, "x.ckpt") == card()


def test_holds_plain_values_only():
    def plain(value) -> bool:
        if isinstance(value, dict):
            return all(isinstance(key, str) and plain(inner) for key, inner in value.items())
        return isinstance(value, str | int | float | bool | None) or (
            isinstance(value, list) and all(map(plain, value))
        )

    assert plain(card().to_dict())


def test_component_arguments_are_read_from_attributes():
    assert describe(TransformerDecoder(depth=1, dim=16, num_heads=2)) == {
        "class_path": "mae_lightning.models.decoder.TransformerDecoder",
        "init_args": {"depth": 1, "dim": 16, "num_heads": 2, "mlp_ratio": 4.0},
    }


def test_an_encoder_alone_says_that_it_has_no_decoder():
    assert card().to_dict()["has_decoder"] is True
    assert card(decoder=None).to_dict()["has_decoder"] is False


def test_later_format_and_foreign_file_are_errors():
    with pytest.raises(ValueError, match=r"x\.ckpt has checkpoint format 99, this version reads up to 1"):
        CheckpointCard.from_checkpoint({CARD_KEY: card(format_version=99).to_dict()}, "x.ckpt")
    with pytest.raises(ValueError, match=r"x\.ckpt was not written by mae_lightning"):
        CheckpointCard.from_checkpoint({"state_dict": {}}, "x.ckpt")


@pytest.mark.parametrize("said", [{}, 3, "text", {**card().to_dict(), "surplus": 1}, {"format_version": "x"}])
def test_a_damaged_card_is_an_error(said):
    with pytest.raises(ValueError, match=r"^x\.ckpt has a card that is damaged or none of mae_lightning's: ."):
        CheckpointCard.from_checkpoint({CARD_KEY: said}, "x.ckpt")
