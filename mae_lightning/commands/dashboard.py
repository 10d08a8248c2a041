"""``dashboard``: a workspace on Weights & Biases for a project's runs, trials and sweeps."""

import argparse
from pathlib import Path

from mae_lightning.commands.configs import find_config
from mae_lightning.commands.sweep_file import read_sweep

DEFAULT_PARAMETERS = ("seed", "pretrain.model.init_args.mask_ratio")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument("--project", default="mae-lightning", help="on Weights & Biases (default: %(default)s)")
    parser.add_argument("--entity", help="user or team (default: who is logged in)")
    parser.add_argument("--name", default="Masked autoencoders", help="of the workspace (default: %(default)s)")
    parser.add_argument("--sweep", metavar="FILE", help="sweep file whose parameters the parallel coordinates have")
    parser.add_argument("--out", type=Path, default=Path("dashboard.json"), help="specification (default: %(default)s)")
    parser.add_argument("--offline", action="store_true", help="write the specification and send nothing")


def run(args: argparse.Namespace) -> int:
    """Writes the specification, and sends it where someone is logged in."""
    from mae_lightning.tracking.dashboards import NOBODY, build_workspace, known_entity, specification

    parameters = list(read_sweep(find_config(args.sweep)).parameters) if args.sweep else DEFAULT_PARAMETERS
    entity = None if args.offline else known_entity()
    workspace = build_workspace(args.entity or entity or NOBODY, args.project, args.name, parameters)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(specification(workspace))
    if entity is None:
        print(f"{args.out}: the specification; nothing was sent. To send it: wandb login, then the same command")
        return 0
    workspace.save()
    print(f"{args.out}: the specification, sent: {workspace.url}")
    return 0
