"""``compare``: two arms run with the same seeds, their difference with its interval, and whether it is a tie."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mae_lightning.evaluation.paired import PairedDifference
    from mae_lightning.tracking.runs import RunRecord

EPILOG = """\
Runs are paired by their seed, and a figure is that of the last epoch: nothing is selected. The interval is Student's
for the mean of paired differences, at 95 %; where it holds 0, the two are a tie.
"""
Arm = dict[int, "RunRecord"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument("first", nargs="+", type=Path, metavar="RUN", help="folders of runs, one a seed")
    parser.add_argument("--with", nargs="+", type=Path, required=True, metavar="RUN", dest="second", help="the others")
    parser.add_argument("--metric", default="val/accuracy", help="figure to compare (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")


def run(args: argparse.Namespace) -> int:
    """Prints a row a seed, both means, and the difference."""
    from mae_lightning.evaluation.paired import paired_difference

    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
    first, second = _by_seed(args.first), _by_seed(args.second)
    if first.keys() != second.keys():
        raise ValueError(
            f"seeds {sorted(first)} on one side and {sorted(second)} on the other make no pairs; run the missing ones"
        )
    seeds = sorted(first)
    values = [[arm[seed].last(args.metric) for seed in seeds] for arm in (first, second)]
    difference = paired_difference(*values)
    print(_table(args.metric, seeds, [_name(first), _name(second)], values))
    print(sentence(difference))
    if args.json:
        content = {"metric": args.metric, "seeds": seeds, "first": values[0], "second": values[1]}
        interval = [difference.mean - difference.half_width, difference.mean + difference.half_width]
        content |= {"difference": difference.mean, "interval": interval, "tie": difference.is_tie}
        args.json.write_text(json.dumps(content, indent=2) + "\n")
    return 0


def sentence(difference: "PairedDifference") -> str:
    """The difference in words."""
    if difference.pairs == 1:
        return f"difference {difference.mean:+.4f}: one pair tells nothing of chance; run more seeds"
    low, high = difference.mean - difference.half_width, difference.mean + difference.half_width
    verdict = "a tie: the interval holds 0"
    if not difference.is_tie:
        verdict = f"the first is {'above' if difference.mean > 0 else 'below'} the second"
    interval = f"95 % interval {low:+.4f} to {high:+.4f}, {difference.pairs} pairs"
    return f"difference {difference.mean:+.4f}, {interval}: {verdict}"


def _by_seed(folders: Sequence[Path]) -> Arm:
    from mae_lightning.tracking.runs import read_run

    arm: Arm = {}
    for folder in folders:
        record = read_run(folder)
        record.check_complete()
        if record.seed in arm:
            raise ValueError(f"{arm[record.seed].folder} and {folder} both have seed {record.seed}; name one of them")
        arm[record.seed] = record
    return arm


def _name(arm: Arm) -> str:
    """What the arm's folders have in common."""
    names = [record.folder.name for record in arm.values()]
    common = names[0]
    while not all(name.startswith(common) for name in names):
        common = common[:-1]
    return common.rstrip("-_+.") or "runs"


def _table(metric: str, seeds: Sequence[int], names: Sequence[str], values: Sequence[Sequence[float]]) -> str:
    widths = [max(len(name), 8) for name in names]
    lines = [f"\n{metric}, last epoch, runs paired by seed\n", f"{'seed':<10}" + _cells(names, widths) + "  difference"]
    for seed, one, other in zip(seeds, *values, strict=True):
        lines.append(f"{seed:<10}" + _cells([f"{one:.4f}", f"{other:.4f}"], widths) + f"  {one - other:+.4f}")
    lines.append(f"{'mean':<10}" + _cells([f"{mean(side):.4f}" for side in values], widths))
    if len(seeds) > 1:
        lines.append(f"{'deviation':<10}" + _cells([f"{stdev(side):.4f}" for side in values], widths))
    return "\n".join(lines) + "\n"


def _cells(texts: Sequence[str], widths: Sequence[int]) -> str:
    return "".join(f"  {text:<{width}}" for text, width in zip(texts, widths, strict=True))
