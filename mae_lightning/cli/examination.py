"""What one rank looks at for ``doctor``, and how the ranks come to one verdict."""

from __future__ import annotations

import hashlib
import os
import socket
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from torch.distributed import HashStore, PrefixStore  # type: ignore[attr-defined]  # public, and not marked so

from mae_lightning.cli.arguments import resolve_configs
from mae_lightning.cli.configured import Configured
from mae_lightning.cli.errors import causes, one_line
from mae_lightning.cli.launched import with_launched_topology
from mae_lightning.cli.run import default_name
from mae_lightning.commands.configs import configs_folder
from mae_lightning.data.manifest import Manifest
from mae_lightning.data.module import ShardDataModule, workers_for
from mae_lightning.data.reading import lanes_for
from mae_lightning.data.sources import WrongLabelsError
from mae_lightning.planning.checks import Finding
from mae_lightning.planning.checks.all_reduce import CHECK as ALL_REDUCE
from mae_lightning.planning.checks.all_reduce import check_all_reduce
from mae_lightning.planning.checks.batch import split_or_none
from mae_lightning.planning.checks.devices import check_device
from mae_lightning.planning.checks.disk import training_bytes
from mae_lightning.planning.checks.labels import CHECK as LABELS
from mae_lightning.planning.checks.labels import CURE as LABELS_CURE
from mae_lightning.planning.checks.labels import check_labels
from mae_lightning.planning.checks.meeting import Meeting, NoMeetingError
from mae_lightning.planning.checks.patience import within
from mae_lightning.planning.checks.ranks import (
    Launch,
    accelerator_of,
    check_launch,
    planned_local_ranks,
    reading_ranks,
)
from mae_lightning.planning.checks.shards import check_readers, check_shards
from mae_lightning.planning.checks.versions import check_versions, versions
from mae_lightning.planning.checks.wandb_server import check_wandb
from mae_lightning.planning.doctor import Line, Report, attendance, judge, shown
from mae_lightning.planning.preflight import accumulation_of, quick_checks
from mae_lightning.weights.opening import CHECKPOINTS

if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule

    from mae_lightning.tasks import Task

T = TypeVar("T")
"""Whatever is built."""


class Examination:
    """One rank's part.

    Args:
        arguments: What fit would be given.
        configured: The same, read.
        launch: This process.
        timeout: Seconds for each wait.
    """

    def __init__(self, arguments: Sequence[str], configured: Configured, launch: Launch, timeout: float) -> None:
        self.arguments, self.configured, self.launch, self.timeout = arguments, configured, launch, timeout
        self.found: list[Finding] = []
        self.trainer: Mapping[str, Any] = configured.trainer

    @cached_property
    def folder(self) -> Path:
        """The run's folder."""
        run = self.configured.run
        name = run.name or default_name(resolve_configs(self.arguments)[1], configs_folder())
        return replace(run, name=name).folder

    @property
    def device(self) -> torch.device:
        """What this rank computes on."""
        if accelerator_of(self.trainer) == "cuda":
            return torch.device("cuda", self.launch.local_rank)
        return torch.device("cpu")

    def report(self) -> Report:
        """All checks that need no other rank."""
        equal = {"versions": versions()}
        self.found = [check_versions(equal["versions"]), self._launch()]
        data = self._built("shards", self.configured.build_data)
        if isinstance(data, ShardDataModule):
            equal |= self._look_at(data)
        model = None
        if data is not None and all(finding.ok is not False for finding in self.found if finding.check == LABELS):
            model = self._built("model", lambda: self.configured.build_model(data))
        if model is None:
            self.found.append(Finding("more", None, "device memory, batch, disk and worker limits need data and model"))
        else:
            self._look_at_machine(data, model)
        if self.launch.rank == 0:
            self.found.append(check_wandb(self._wandb_mode()))
        return Report(socket.gethostname(), self.found, equal)

    def _launch(self) -> Finding:
        """Whether the trainer goes with the launcher, which says what the trainer's settings leave open."""
        try:
            self.trainer = with_launched_topology(self.trainer, os.environ)
        except ValueError as error:
            return Finding("launch", False, str(error), "the settings or the launcher's options must give way")
        return check_launch(self.trainer, self.launch)

    def _built(self, check: str, build: Callable[[], T]) -> T | None:
        """What is built; None after an error or a silence, which becomes a finding."""
        try:
            return within(self.timeout, build)
        except Exception as error:
            if any(isinstance(link, WrongLabelsError) for link in causes(error)):
                check, cure = LABELS, LABELS_CURE
            else:
                cure = "mae-lightning verify MANIFEST says more" if check == "shards" else "correct the setting"
            text = one_line(error) or f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            if any(isinstance(link, FileNotFoundError) for link in causes(error)):
                cure = "put it there, on this machine too, or correct the path"
            self.found.append(Finding(check, False, text, cure))
            return None

    def _look_at(self, data: ShardDataModule) -> dict[str, dict[str, str]]:
        """Shards, readers and labels; what of them must be the same on all ranks."""
        launch, trainer = self.launch, self.trainer
        splits: dict[str, Manifest] = {name: source.manifest for name, source in data.sources.items()}
        self.found.append(check_shards(splits, launch.rank, launch.world_size, self.timeout))
        if "train" not in splits:
            return {}
        manifest, accumulation = splits["train"], accumulation_of(trainer)
        ranks, batch = reading_ranks(trainer, launch), data.global_batch_size
        parts = split_or_none(batch, ranks, accumulation, data.max_micro_batch_size, data.repeats)
        if parts is not None:
            workers = workers_for(data.num_workers, planned_local_ranks(trainer, launch))
            samples = batch // data.repeats
            lanes = data.lanes or lanes_for(manifest, samples)
            self.found.append(check_readers(manifest, lanes, samples, ranks, parts[1], workers))
        arguments = self.configured.parsed.model.init_args
        given = arguments.get("num_classes") if "num_classes" in arguments else None
        takes_labels = "num_classes" in arguments
        self.found.append(check_labels(manifest, data.class_names, data.num_classes, given, takes_labels))
        digests = {name: one.digest[:12] for name, one in splits.items()}
        names = hashlib.sha256("\n".join(data.class_names or ()).encode()).hexdigest()[:12]
        return {"shards": digests, LABELS: {"sha256 of the class names": names}}

    def _look_at_machine(self, data: LightningDataModule | None, model: Task) -> None:
        trainer = self.trainer
        init_from = self.configured.model.get("init_from")
        if init_from is not None and Path(init_from).suffix in CHECKPOINTS and not Path(init_from).exists():
            cure = "train it first, or copy it to this machine, or correct --model.init_args.init_from"
            self.found.append(Finding("weights", False, f"{init_from} is not there", cure))
        needed = training_bytes(model)
        self.found.append(check_device(accelerator_of(trainer), self.launch.local_rank, needed))
        self.found += quick_checks(model, data, trainer, self.folder, self.launch)

    def _wandb_mode(self) -> Literal["online", "offline", "off"]:
        from mae_lightning.tracking.loggers import is_logged_in

        mode = self.configured.run.wandb
        if mode == "auto":
            return "online" if is_logged_in() else "offline"
        return mode


# ---------------------------------------------------------------- all ranks


def consult(examination: Examination) -> bool:
    """Examines this rank, meets the others, prints on rank 0; whether all is well."""
    launch, timeout = examination.launch, examination.timeout
    if launch.world_size == 1:
        report = examination.report()
        together = check_all_reduce(HashStore(), 0, 1, examination.device, timeout) if _can_sum([report]) else None
        findings = [*report.findings, *([together] if together else [])]
        return _say(judge({0: replace(report, findings=findings)}, 1))
    try:
        meeting = Meeting(launch, timeout)
    except NoMeetingError as error:
        return _alone(examination, error.finding)
    reports = _gathered(meeting, "report", replace(examination.report(), clock=meeting.clock))
    reports = _summed(meeting, examination, reports)
    lines = []
    if launch.rank == 0:
        lines = judge(reports, launch.world_size, attendance(launch.world_size, meeting.present, reports, timeout))
        _say(lines)
    well = meeting.agree(all(line.ok is not False for line in lines), "verdict")
    meeting.part()
    return well


def _gathered(meeting: Meeting, subject: str, report: Report) -> dict[int, Report]:
    return {rank: Report.from_json(text) for rank, text in meeting.gather(subject, report.to_json()).items()}


def _summed(meeting: Meeting, examination: Examination, reports: dict[int, Report]) -> dict[int, Report]:
    """The reports, with what came of the sum over all ranks."""
    launch = examination.launch
    complete = len(reports) == launch.world_size and _can_sum(reports.values())
    if not meeting.agree(complete, "sum"):
        skipped = Finding(ALL_REDUCE, None, "not tried: it needs all ranks and their devices")
        return {rank: replace(report, findings=[*report.findings, skipped]) for rank, report in reports.items()}
    store = PrefixStore("sum", meeting.store)
    found = check_all_reduce(store, launch.rank, launch.world_size, examination.device, examination.timeout)
    told = _gathered(meeting, "sum report", Report("", [found]))
    return {
        rank: replace(report, findings=[*report.findings, *(told[rank].findings if rank in told else ())])
        for rank, report in reports.items()
    }


def _can_sum(reports: Iterable[Report]) -> bool:
    """Whether every rank has its device."""
    return all(
        finding.ok is not False for report in reports for finding in report.findings if finding.check == "device"
    )


def _alone(examination: Examination, why: Finding) -> bool:
    """What a rank says that did not meet the others: rank 0 all, another what is wrong with it."""
    rank = examination.launch.rank
    if rank:
        why = replace(why, text=f"rank {rank}: {why.text}")
    lines = judge({rank: examination.report()}, examination.launch.world_size, why)
    return _say([line for line in lines if rank == 0 or line.ok is False])


def _say(lines: Sequence[Line]) -> bool:
    sys.stdout.write("".join(f"{text}\n" for text in shown(lines, coloured=sys.stdout.isatty())))
    sys.stdout.flush()
    return all(line.ok is not False for line in lines)
