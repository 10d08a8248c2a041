"""What the ranks found, as one line a check that names the ranks concerned."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from mae_lightning.planning.checks import Finding
from mae_lightning.planning.checks.finding import counted
from mae_lightning.planning.checks.meeting import MEETING

MAX_SKEW = 3.0
"""Seconds between clocks: more confuses leases, signed links and the order of logs."""


@dataclass(frozen=True)
class Report:
    """What one rank found.

    Attributes:
        host: Its machine.
        findings: Of its checks, in their order.
        equal: By check, facts that must be the same on every rank.
        clock: Its time when all ranks had come, seconds since 1970.
    """

    host: str
    findings: Sequence[Finding] = ()
    equal: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    clock: float = 0.0

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: bytes | str) -> Report:
        content = json.loads(text)
        findings = tuple(Finding(**finding) for finding in content.pop("findings"))
        return cls(findings=findings, **content)


# ---------------------------------------------------------------- judging


@dataclass(frozen=True)
class Line:
    """What is said of one check over all ranks."""

    check: str
    ok: bool | None
    text: str


def judge(reports: Mapping[int, Report], world_size: int, meeting: Finding | None = None) -> list[Line]:
    """One line a check, in the order of the checks; the failing ranks are named.

    Args:
        reports: Of the ranks that told.
        world_size: Ranks that were launched.
        meeting: What came of their meeting; None where there was none.
    """
    found: dict[str, dict[int, Finding]] = {}
    for rank, report in sorted(reports.items()):
        for finding in report.findings:
            found.setdefault(finding.check, {})[rank] = finding
    together = [*([meeting] if meeting else []), *([_clocks(reports)] if len(reports) > 1 else [])]
    lines = {finding.check: Line(finding.check, finding.ok, _told(finding)) for finding in together}
    lines |= {check: _merged(check, by_rank, world_size) for check, by_rank in found.items()}
    for finding in _differences(reports):
        if finding.check not in lines or lines[finding.check].ok is not False:
            lines[finding.check] = Line(finding.check, finding.ok, _told(finding))
    return list(lines.values())


def _told(finding: Finding) -> str:
    return f"{finding.text}; {finding.cure}" if finding.cure else finding.text


def _merged(check: str, by_rank: Mapping[int, Finding], world_size: int) -> Line:
    worst = next((ok for ok in (False, None) if any(finding.ok is ok for finding in by_rank.values())), True)
    if worst is True:
        texts = [finding.text for finding in by_rank.values()]
        return Line(check, True, texts[0] + ("" if len(set(texts)) == 1 else f" (on rank {min(by_rank)})"))
    groups: dict[Finding, list[int]] = {}
    for rank, finding in by_rank.items():
        if finding.ok is worst:
            groups.setdefault(finding, []).append(rank)
    texts = [
        f"{named(ranks)}: {finding.text}" if world_size > 1 and finding.ok is False else finding.text
        for finding, ranks in groups.items()
    ]
    cures = dict.fromkeys(finding.cure for finding in groups if finding.cure)
    return Line(check, worst, "; ".join([*texts, *cures]))


def named(ranks: Sequence[int]) -> str:
    """Ranks as people write them: ``rank 3``, ``ranks 0-2, 5``."""
    runs: list[list[int]] = []
    for rank in sorted(ranks):
        if runs and rank == runs[-1][-1] + 1:
            runs[-1].append(rank)
        else:
            runs.append([rank])
    text = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
    return f"rank{'s' if len(ranks) > 1 else ''} {text}"


def attendance(world_size: int, present: Sequence[int], reports: Mapping[int, Report], timeout: float) -> Finding:
    """Who came and who told.

    Args:
        world_size: Ranks that were launched.
        present: Ranks that came.
        reports: Of the ranks that told.
        timeout: Seconds that were waited.
    """
    missing, silent = sorted(set(range(world_size)) - set(present)), sorted(set(present) - set(reports))
    if missing:
        return Finding(
            MEETING,
            False,
            f"{named(missing)} of {world_size} did not come within {timeout:g} s",
            "look at the output there, at MASTER_ADDR and MASTER_PORT, and at the way to rank 0",
        )
    if silent:
        return Finding(
            MEETING, False, f"{named(silent)} came, and told nothing within {timeout:g} s", "look at the output there"
        )
    hosts = {report.host for report in reports.values()}
    return Finding(MEETING, True, f"{counted(len(present), 'rank')} met on {counted(len(hosts), 'machine')}")


def _clocks(reports: Mapping[int, Report]) -> Finding:
    """How far the ranks' clocks were apart at the moment when all had come."""
    base = reports[min(reports)].clock
    skews = {rank: report.clock - base for rank, report in reports.items()}
    late = [rank for rank, skew in skews.items() if abs(skew) > MAX_SKEW]
    if late:
        worst = max(late, key=lambda rank: abs(skews[rank]))
        return Finding(
            "clocks",
            False,
            f"{named(late)}: {skews[worst]:+.1f} s from rank {min(reports)} (rank {worst})",
            "synchronise the machine's clock (timedatectl, chronyc)",
        )
    return Finding("clocks", True, f"within {max(map(abs, skews.values())):.2f} s")


def _differences(reports: Mapping[int, Report]) -> Iterator[Finding]:
    """What should be the same everywhere and is not, check by check."""
    for check in dict.fromkeys(check for report in reports.values() for check in report.equal):
        facts = {rank: report.equal[check] for rank, report in reports.items() if check in report.equal}
        told = []
        for name in dict.fromkeys(name for known in facts.values() for name in known):
            ranks: dict[str, list[int]] = {}
            for rank, known in facts.items():
                ranks.setdefault(known.get(name, "nothing"), []).append(rank)
            if len(ranks) > 1:
                told.append(f"{name} is " + ", ".join(f"{value} on {named(who)}" for value, who in ranks.items()))
        if told:
            yield Finding(
                check, False, "; ".join(told), "give all ranks the same: one container image, one copy of the data"
            )


def shown(lines: Sequence[Line], coloured: bool = False) -> list[str]:
    """The lines as the terminal has them."""
    words = {True: ("ok", 32), False: ("FAIL", 31), None: ("skip", 33)}
    width = max((len(line.check) for line in lines), default=0)
    text = []
    for line in lines:
        word, colour = words[line.ok]
        mark = f"\x1b[{colour}m{word:<4}\x1b[0m" if coloured else f"{word:<4}"
        text.append(f"{mark}  {line.check:<{width}}  {line.text}")
    return text
