"""A comparison's figures: measured, counted, and as plain values."""

import gc
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from mae_lightning.data.benchmark import Cost
from mae_lightning.planning.benchmark.apart import Apart
from mae_lightning.planning.benchmark.comparisons import Comparison, flops_of
from mae_lightning.planning.benchmark.contender import Contender
from mae_lightning.planning.benchmark.memory import peak_of_process
from mae_lightning.planning.benchmark.peers import PACKAGES, has_peer
from mae_lightning.planning.benchmark.rates import moved_bytes
from mae_lightning.planning.benchmark.rounds import Rounds, measure
from mae_lightning.planning.benchmark.ways import Build, Candidate, Way
from mae_lightning.planning.checks.versions import versions

CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Row:
    """A candidate's figures.

    Attributes:
        title: Its name.
        flops_per_image: Counted on our model, whose work it is.
        images_per_second: Its pace.
        seconds: Of a step.
        parts: Seconds by part.
        matrix_share: Of the device's rate of large matrix products in the same precision.
        copy_share: Of the device's rate of large copies; None where what it moves is not known.
        peak_bytes: The most memory it took; None where that was not measured.
    """

    title: str
    flops_per_image: float
    images_per_second: Cost
    seconds: Cost
    parts: dict[str, Cost]
    matrix_share: Cost
    copy_share: Cost | None
    peak_bytes: int | None


@dataclass(frozen=True)
class Ratio:
    """Of two paces.

    Attributes:
        title: What of what.
        times: The quotient.
        flops: Of the operations, the other way round.
        paper: As published.
    """

    title: str
    times: Cost
    flops: float | None
    paper: float | None


@dataclass(frozen=True)
class Table:
    """Everything about one model at one batch size.

    Attributes:
        model: Its name.
        batch_size: Images a step.
        rounds: That were measured.
        matrix_rates: Operations a second of large matrix products, by precision.
        copy_rate: Bytes a second of large copies.
        rows: The candidates.
        ratios: Between them.
        too_large: Candidates that do not fit into the device's memory.
    """

    model: str
    batch_size: int
    rounds: int
    matrix_rates: dict[str, Cost]
    copy_rate: Cost
    rows: list[Row]
    ratios: list[Ratio] = field(default_factory=list)
    too_large: list[str] = field(default_factory=list)


def compare(comparison: Comparison, batch_size: int, rounds: int, device: torch.device) -> Table:
    """Measures a comparison at one batch size.

    Raises:
        ValueError: Not one candidate fits into memory.
    """
    flops = _flops(comparison)  # fails here, before anything is measured
    peaks = _peaks_of_processes(comparison, batch_size) if device.type == "cpu" else {}
    with closing(_Ready(comparison.candidates, batch_size, device, peaks)) as ready:
        if not ready.contenders:
            raise ValueError(f"{comparison.model}: no candidate fits into memory with {batch_size} images; take fewer")
        found = measure(ready.contenders, ready.steps, batch_size, rounds)
    rows = _rows(comparison, flops, ready, found, batch_size)
    ratios = [
        Ratio(pair.title or f"{pair.fast} over {pair.slow}", found.ratio(pair.fast, pair.slow), pair.flops, pair.paper)
        for pair in comparison.pairs
        if {pair.fast, pair.slow} <= found.turns.keys()
    ]
    return Table(
        comparison.model,
        batch_size,
        rounds,
        {precision: Cost.of(rates) for precision, rates in found.matrix_rates.items()},
        Cost.of(found.copy_rates),
        rows,
        ratios,
        ready.too_large,
    )


class _Ready:
    """Contenders that have warmed up.

    Attributes:
        contenders: By their titles.
        steps: Of a turn.
        peaks: Bytes.
        too_large: Titles of those that do not fit.
    """

    def __init__(
        self, candidates: Iterable[Candidate], batch_size: int, device: torch.device, peaks: dict[str, int | None]
    ) -> None:
        self.contenders: dict[str, Contender | Apart] = {}
        self.steps: dict[str, int] = {}
        self.peaks, self.too_large = peaks, list[str]()
        torch.compiler.reset()  # a model compiled for another batch size would be compiled for any
        for candidate in candidates:
            gc.collect()
            try:
                self._add(candidate, batch_size, device)
            except torch.OutOfMemoryError:
                self.contenders.pop(candidate.title, None)
                self.too_large.append(candidate.title)

    def _add(self, candidate: Candidate, batch_size: int, device: torch.device) -> None:
        is_cuda = device.type == "cuda"
        if is_cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
        is_apart = not is_cuda and not candidate.way.keeps_memory
        contender = self.contenders[candidate.title] = Apart(candidate) if is_apart else Contender(candidate, device)
        self.steps[candidate.title] = contender.warm_up(batch_size)
        if is_cuda:
            self.peaks[candidate.title] = torch.cuda.max_memory_allocated(device) - before

    def close(self) -> None:
        """Ends the processes of those that have one."""
        for contender in self.contenders.values():
            if isinstance(contender, Apart):
                contender.close()


def _peaks_of_processes(comparison: Comparison, batch_size: int) -> dict[str, int | None]:
    """Of each candidate that is not compiled: the compiler's memory would count too."""
    if not comparison.measures_memory:
        return {}
    candidates = (one for one in comparison.candidates if one.way.compiled == "none")
    return {one.title: peak_of_process(one, batch_size) for one in candidates}


def _flops(comparison: Comparison) -> dict[Build, float]:
    """Of a step for one image, by model."""
    return {build: flops_of(build) for build in {candidate.build for candidate in comparison.candidates}}


def _rows(
    comparison: Comparison, flops: dict[Build, float], ready: _Ready, found: Rounds, batch_size: int
) -> list[Row]:
    rows = []
    for candidate in comparison.candidates:
        title, way = candidate.title, candidate.way
        if title not in found.turns:
            continue
        moved = float(moved_bytes(candidate.build, batch_size, way.precision)) if _is_counted(way) else None
        rows.append(
            Row(
                title,
                flops[candidate.build],
                found.pace(title, batch_size),
                Cost.of(found.seconds(title)),
                found.parts(title),
                found.matrix_share(title, way.precision, batch_size * flops[candidate.build]),
                None if moved is None else found.copy_share(title, moved),
                ready.peaks.get(title),
            )
        )
    return rows


def _is_counted(way: Way) -> bool:
    """Whether it is known what a step moves."""
    return way == Way(precision=way.precision)


def surroundings(device: torch.device) -> dict[str, Any]:
    """Hardware, versions and date, without which no figure means anything."""
    peers = {package: version(package) for peer, package in PACKAGES.items() if has_peer(peer)}
    return {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "versions": versions() | peers,
        "date": datetime.now(UTC).date().isoformat(),
    }


def device_name(device: torch.device) -> str:
    """The GPU's or the processor's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    names = CPU_INFO.read_text().splitlines() if CPU_INFO.exists() else []
    name = next((line.split(":", 1)[1].strip() for line in names if line.startswith("model name")), "CPU")
    return f"{name}, {torch.get_num_threads()} threads"


def plain_figures(tables: list[Table], device: torch.device) -> dict[str, Any]:
    """All figures as plain values."""
    return surroundings(device) | {"tables": [asdict(table) for table in tables]}
