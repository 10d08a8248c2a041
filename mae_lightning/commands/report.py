"""``report``: finished trials as the papers' tables and curves, ours beside theirs."""

import argparse
from pathlib import Path

EPILOG = """\
Trials belong to a table or figure by their --study, as those of the shipped sweeps do. Written are report.md,
report.tex (booktabs), report.html (one file, nothing is fetched), report.json, and a PNG and a PDF for each study.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUNS", help="folders of trials or sweeps, or offline runs of W&B"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="of the report (default: report in the first RUNS)")
    parser.add_argument(
        "--wandb", choices=("auto", "online", "offline", "off"), default="off", help="show the table there"
    )
    parser.add_argument("--project", default="mae-lightning", help="on Weights & Biases")


def run(args: argparse.Namespace) -> int:
    """Writes the report, and prints its tables."""
    from mae_lightning.tracking import log_table
    from mae_lightning.tracking.comparison import compare, why_left_out
    from mae_lightning.tracking.report_pages import write_report
    from mae_lightning.tracking.report_tables import plain_rows, sentences, tables
    from mae_lightning.tracking.trials import read_trials

    found, unfinished = read_trials(args.runs)
    for folder in unfinished:
        print(f"left out, not finished or of no study: {folder}")
    reasons = [why_left_out(trial) for trial in found]
    for reason in filter(None, reasons):
        print(f"left out: {reason}")
    trials = [trial for trial, reason in zip(found, reasons, strict=True) if reason is None]
    if not trials:
        raise ValueError(
            f"no finished trial of a study in {', '.join(map(str, args.runs))}; sweep runs the missing ones"
        )
    comparisons = compare(trials)
    for comparison in comparisons:
        for table in tables(comparison)[:-1]:
            print(f"\n{table.title}\n\n{table.markdown()}")
        print("\n" + "\n".join(sentences(comparison)))
    first = args.runs[0] if args.runs[0].is_dir() else args.runs[0].parent
    folder = args.out or first / "report"
    files = write_report(comparisons, folder)
    if args.wandb != "off":
        rows = [row for comparison in comparisons for row in plain_rows(comparison)]
        log_table(folder, "report", rows, args.wandb, args.project)
    print("\n" + "\n".join(str(file) for file in files))
    return 0
