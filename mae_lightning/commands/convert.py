"""``convert``: weights from any format to any other, checked before they are kept."""

import argparse
from dataclasses import replace
from pathlib import Path

from mae_lightning.commands.checks import check_counts, check_out
from mae_lightning.commands.facts import add_facts, facts

TARGETS = ("official", "timm", "hf", "safetensors", "onnx", "export")
EPILOG = """\
From: checkpoints of this package, official MAE files (pretraining, encoder alone, fine-tuned), timm's files and names
(timm/vit_base_patch16_224.mae), Hugging Face folders of ViTMAE and ViT.
To:   official     FILE.pth          the official MAE's names, decoder included
      timm         FILE.safetensors  for timm.create_model(..., checkpoint_path=FILE): encoder or classifier
      hf           FOLDER            for transformers' from_pretrained: ViTMAEForPreTraining, ViTModel or
                                     ViTForImageClassification
      safetensors  FILE.safetensors  everything, under this package's names
      onnx         FILE.onnx         encoder or classifier, any batch size; needs the extra 'export'
      export       FILE.pt2          the same for torch.export.load
Nothing is written unless the new file gives the same outputs as the old one.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a file, a folder or a timm name")
    parser.add_argument("--to", required=True, choices=TARGETS, metavar="FORMAT", help="of %(choices)s")
    parser.add_argument("--out", required=True, type=Path, metavar="PATH", help="new file or folder")
    parser.add_argument("--encoder-only", action="store_true", help="leave the decoder out")
    parser.add_argument(
        "--image-size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="fit positions to other images"
    )
    parser.add_argument("--patch-size", type=int, nargs="+", metavar="SIDE", help="resample filters: side, or two")
    parser.add_argument(
        "--channels", type=int, metavar="N", help="fit filters to other channels; --mean and --std are then theirs"
    )
    add_facts(parser)


def run(args: argparse.Namespace) -> int:
    """Converts, and says what was changed, checked and left out."""
    from mae_lightning.weights.content import Said, completed
    from mae_lightning.weights.converting import convert
    from mae_lightning.weights.opening import open_weights

    check_counts(args, image_size=1, patch_size=1, channels=1)
    check_out(args.out)
    said, moments = Said(**facts(args)), _moments(args)
    if moments is not None:
        said = replace(said, mean=None, std=None)
    weights = completed(open_weights(args.checkpoint, said), said)
    for assumption in weights.assumed:
        print(f"{args.checkpoint} does not say it; assumed: {assumption}")
    if args.encoder_only:
        weights = weights.without_decoder
    if args.image_size or args.patch_size or moments:
        from mae_lightning.weights.resizing import resized

        weights, lines = resized(
            weights, image_size=_pair(args.image_size), patch_size=_pair(args.patch_size), moments=moments
        )
        print("\n".join(lines or ["the weights are of that size already"]))
    for line in convert(weights, args.to, args.out):
        print(line)
    print(f"{args.out}: {args.checkpoint} in the format '{args.to}'")
    return 0


def _moments(args: argparse.Namespace) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and deviation of the channels asked for."""
    if args.channels is None:
        return None
    if args.mean is None or len(args.mean) != args.channels:
        raise ValueError(f"--channels {args.channels} needs --mean and --std of {args.channels} numbers each")
    return tuple(args.mean), tuple(args.std)


def _pair(sides: list[int] | None) -> tuple[int, int] | None:
    if sides is not None and len(sides) > 2:
        raise ValueError(f"a patch has one side or two, not {len(sides)}")
    return None if sides is None else (sides[0], sides[-1])
