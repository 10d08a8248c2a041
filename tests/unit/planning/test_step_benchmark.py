"""`bench step`: its figures, and that every way of running a step is the same step."""

import copy
import multiprocessing
import statistics
from contextlib import closing
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from mae_lightning.data import Batch
from mae_lightning.data.benchmark import Cost
from mae_lightning.models import NormalizedPixels, PatchMask, TransformerDecoder, ViTSize, step_flops
from mae_lightning.planning.benchmark import comparisons, figures, memory, peers, rates, rounds
from mae_lightning.planning.benchmark.apart import Apart
from mae_lightning.planning.benchmark.comparisons import Comparison, alone, table_2, techniques, with_peers
from mae_lightning.planning.benchmark.contender import PARTS, Contender, Turn, noise
from mae_lightning.planning.benchmark.plain import make_plain
from mae_lightning.planning.benchmark.rounds import Rounds
from mae_lightning.planning.benchmark.ways import Candidate, Way
from mae_lightning.planning.benchmark.wording import lines_of
from mae_lightning.tasks import MAEPretraining

CPU = torch.device("cpu")


def tiny(device: str, **options: object) -> MAEPretraining:
    options = {"decoder": TransformerDecoder(depth=2, dim=16, num_heads=2)} | options
    with torch.device(device):
        return MAEPretraining(ViTSize(16, 2, 2, 8), image_size=(32, 32), **options)


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device is measured on little work."""
    monkeypatch.setitem(rates.SIDES, "cpu", 64)
    monkeypatch.setitem(rates.COPIED, "cpu", 2**16)
    monkeypatch.setattr("mae_lightning.planning.benchmark.contender.TURN_SECONDS", 0.02)


def run(comparison: Comparison, batch_size: int = 4) -> figures.Table:
    return figures.compare(comparison, batch_size, 7, CPU)


@pytest.mark.usefixtures("_quick")
def test_a_table_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "peak_of_process", lambda candidate, batch_size: 3 * 2**30)
    found: list[Rounds] = []
    monkeypatch.setattr(figures, "measure", lambda *given: found.append(rounds.measure(*given)) or found[-1])
    table = run(alone("tiny", tiny, "bf16", ["none"]))
    (row,) = table.rows
    task = tiny("meta")
    assert row.flops_per_image == step_flops(task.model, task.num_kept)
    assert list(row.parts) == [part for part in PARTS if part != "forward"]
    assert row.images_per_second.median == pytest.approx(4 / row.seconds.median)
    shares = [sum(turn.parts.values()) / turn.seconds for turn in found[0].turns[row.title]]
    assert 0.7 < statistics.median(shares) <= 1
    assert row.peak_bytes == 3 * 2**30
    assert row.copy_share is not None
    lines = list(lines_of(table))
    assert lines[0] == "tiny, batch 4: medians of 7 rounds and their 95 % intervals"
    assert lines[3].startswith("  ours, bf16  ")
    assert lines[3].endswith("3.00")
    assert lines[5].split() == ["milliseconds", *row.parts]


def made_up(**seconds: list[float]) -> Rounds:
    turns = {title: [Turn(each, {"backward": each / 2}) for each in values] for title, values in seconds.items()}
    return Rounds(turns, {"bf16": [100.0, 50.0] * 4}, [10.0, 5.0] * 4)


def test_ratios_and_shares_are_those_of_each_round() -> None:
    ours = [1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0]
    found = made_up(ours=ours, theirs=[3 * each for each in ours])
    assert found.ratio("ours", "theirs") == Cost(3.0, 3.0, 3.0)
    assert found.ratio("theirs", "ours").median == pytest.approx(1 / 3)
    assert found.matrix_share("ours", "bf16", flops=40.0) == Cost(0.4, 0.4, 0.4)
    assert found.copy_share("ours", moved=4.0) == Cost(0.4, 0.4, 0.4)
    assert found.pace("ours", 8) == Cost(6.0, 4.0, 8.0)
    assert found.parts("theirs") == {"backward": Cost(2.25, 1.5, 3.0)}


@pytest.mark.usefixtures("_quick")
def test_contenders_take_turns_on_the_same_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    contenders = {title: Contender(Candidate(title, tiny, Way(precision="fp32")), CPU) for title in "abc"}
    seen: list[tuple[str, torch.Tensor]] = []

    def spy(contender: Contender, images: list[torch.Tensor], steps: int) -> Turn:
        seen.append((contender.candidate.title, images[0]))
        return Turn(1.0, {})

    monkeypatch.setattr(Contender, "turn", spy)
    rounds.measure(contenders, dict.fromkeys("abc", 2), 4, 7)
    titles = "".join(title for title, _ in seen)
    assert titles == "abcbcacab" * 2 + "abc"
    for number in range(7):
        first, *others = [images for _, images in seen[3 * number : 3 * number + 3]]
        assert all(each is first for each in others)
        assert first.float().std() > 50
    assert not torch.equal(seen[0][1], seen[3][1])


def test_a_turn_does_not_time_its_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that moves by a second each time it is read, and by a thousand in the first step."""
    contender = Contender(Candidate("", tiny, Way(precision="fp32")), CPU)
    step, pauses, now = contender.step, iter([1000, 0, 0]), 0

    def read(passed: int = 1) -> float:
        nonlocal now
        now += passed
        return now

    def slow_at_first(batch: Batch) -> None:
        step(batch)
        read(next(pauses))

    monkeypatch.setattr("mae_lightning.planning.benchmark.contender.time", SimpleNamespace(perf_counter=read))
    monkeypatch.setattr(contender, "step", slow_at_first)
    turn = contender.turn([noise(contender.image_shape, 4)], 2)
    assert next(pauses, None) is None
    assert turn.parts == dict.fromkeys(turn.parts, 1)
    assert turn.seconds == len(turn.parts) + 1 + 0.5  # the reading at a step's begin; and one at the end of both


@pytest.mark.parametrize(("fused", "chosen"), [(True, True), (False, None)])
def test_adamw_is_fused_or_as_it_comes(fused: bool, chosen: bool | None) -> None:
    optimizer = Contender(Candidate("", tiny, Way(fused=fused)), CPU).optimizer
    assert {(group["fused"], group["foreach"]) for group in optimizer.param_groups} == {(chosen, None)}


@pytest.mark.usefixtures("_quick")
def test_memory_given_back_takes_a_process_of_its_own() -> None:
    """With an allocator that nobody has set; all take turns as before."""
    model = partial(comparisons.named_model, "nano/4", 16)
    ways = {"ours": Way(), "given back": Way(plain="memory")}
    candidates = tuple(Candidate(title, model, way) for title, way in ways.items())
    with closing(figures._Ready(candidates, 4, CPU, {})) as ready:
        kinds = [type(ready.contenders[title]) for title in ways]
        found = rounds.measure(ready.contenders, ready.steps, 4, 7)
        processes = multiprocessing.active_children()
    assert kinds == [Contender, Apart]
    assert len(processes) == 1
    assert not multiprocessing.active_children()
    for title in ways:
        assert all(set(turn.parts) == set(PARTS) - {"forward"} for turn in found.turns[title])
        assert all(0 < sum(turn.parts.values()) < turn.seconds for turn in found.turns[title])


@pytest.mark.parametrize("plain", ["embed", "order", "head", "queries", "attention", "fused"])
def test_plain_ways_give_the_same_loss_and_gradients(plain: str) -> None:
    fast = tiny("cpu", target=NormalizedPixels()).model.double()
    slow = copy.deepcopy(fast)
    make_plain(slow, plain)
    images, mask = torch.randn(3, 3, 32, 32).double(), PatchMask.from_noise(torch.rand(3, 16), 0.75)
    outputs = [model(images, mask) for model in (fast, slow)]
    torch.testing.assert_close(*(output.loss_per_patch for output in outputs))
    torch.testing.assert_close(*(output.prediction for output in outputs))
    for output in outputs:
        output.loss_per_patch.mean().backward()
    for (name, ours), theirs in zip(fast.named_parameters(), slow.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=lambda text, name=name: f"{name}: {text}")


def test_plain_ways_are_other_computations() -> None:
    counted = {}
    for plain in ("", "queries", "order", "head"):
        task = tiny("meta")
        make_plain(task.model, plain)
        counted[plain] = rates.moved_bytes(lambda device, task=task: task, 4, "fp32")
    assert counted[""] < counted["queries"] < min(counted["order"], counted["head"])


@pytest.mark.parametrize(
    "way",
    [
        Way(precision="fp32"),
        Way(precision="bf16"),
        Way(precision="fp16"),
        Way(plain="input"),
        Way("huggingface", "fp32", fused=False),
        Way("huggingface", "bf16", fused=False, explicit=True, waits=True),
    ],
)
def test_every_way_trains(way: Way) -> None:
    contender = Contender(Candidate("", tiny, way), CPU)
    before = copy.deepcopy(contender.model.state_dict())
    for _ in range(2):
        contender.step(contender.batch_of(noise(contender.image_shape, 4)))
    changed = [name for name, value in contender.model.state_dict().items() if not torch.equal(value, before[name])]
    still = [name for name in before if name not in changed]
    assert all("pos" in name for name in still), still
    assert all(value.isfinite().all() for value in contender.model.state_dict().values())
    assert set(contender.clock.read()) == set(PARTS) - {"forward"}
    assert not contender.clock.read()


def test_others_have_our_sizes_and_get_floats() -> None:
    task = tiny("meta")
    theirs = peers.HuggingFace(task, explicit=False)
    ours, others = ([p.numel() for p in model.parameters() if p.requires_grad] for model in (task.model, theirs))
    assert sum(ours) == sum(others)
    contender = Contender(Candidate("", tiny, Way("huggingface", "fp32")), CPU)
    images = noise(contender.image_shape, 4)
    batch = contender.batch_of(images)
    assert batch["image"].dtype == torch.float32
    assert (batch["image"].min(), batch["image"].max()) == (-1, pytest.approx(1, abs=0.01))
    own = Contender(Candidate("", tiny, Way()), CPU).batch_of(images)
    assert own["image"] is images
    assert len(set(own["index"].tolist())) == 4


def test_what_is_compared() -> None:
    titles = [one.title for one in with_peers("m", tiny, "bf16", ["none"], "cpu").candidates]
    assert titles[:4] == ["ours, fp32", "ours, bf16", "Hugging Face, fp32", "Hugging Face, bf16"]
    comparison = with_peers("m", tiny, "bf16", ["none", "whole"], "cuda")
    assert [one.title for one in comparison.candidates if "lightly" not in one.title] == [
        "ours, bf16",
        "ours, bf16, whole compiled",
        "Hugging Face, bf16",
        "Hugging Face, fp16",
        "the official way",
    ]
    official = comparison.candidates[-1].way
    assert (official.precision, official.explicit, official.waits, official.fused) == ("fp16", True, True, False)
    assert len(comparison.pairs) == 2 * (len(comparison.candidates) - 2)
    one_by_one = techniques("m", tiny, "bf16", ["none"], "cpu")
    assert len(one_by_one.pairs) == len(one_by_one.candidates) - 1 == 10
    assert {pair.slow for pair in one_by_one.pairs} == {one.title for one in one_by_one.candidates[1:]}
    assert len(techniques("m", tiny, "bf16", ["none"], "cuda").pairs) == 9


def test_what_cannot_be_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    other = partial(tiny, loss_on="all")
    with pytest.raises(ValueError, match=r"^--compare: others have the paper's masked autoencoder of square images"):
        with_peers("m", other, "bf16", ["none"], "cpu")
    with pytest.raises(ValueError, match=r"^--techniques: the plain ways are those of the paper's"):
        techniques("m", other, "bf16", ["none"], "cpu")
    monkeypatch.setitem(peers.PACKAGES, "huggingface", "no-such-package")
    with pytest.raises(ValueError, match=r"^--compare needs no-such-package, which is not installed: pip install no-"):
        with_peers("m", tiny, "bf16", ["none"], "cpu")


def test_what_does_not_fit_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def warm_up(contender: Contender, batch_size: int) -> int:
        raise torch.OutOfMemoryError("no")

    monkeypatch.setattr(Contender, "warm_up", warm_up)
    with pytest.raises(ValueError, match=r"^m: no candidate fits into memory with 4 images; take fewer$"):
        run(Comparison("m", tiny, (Candidate("a", tiny, Way()),), measures_memory=False))


def test_table_2_beside_the_papers() -> None:
    pairs = table_2("large/16", 224, "bf16").pairs
    assert [(pair.title, pair.paper) for pair in pairs] == [("8 blocks", 2.8), ("1 block", 3.7)]
    assert pairs[0].flops == pytest.approx(401.8 / 124.2, rel=0.03)
    assert pairs[1].flops > pairs[0].flops
    assert comparisons.TABLE_2["huge/14"] == {8: 3.5, 1: 4.1}


def test_traffic_is_what_operations_read_and_write() -> None:
    values, traffic = torch.zeros(10), rates._Traffic()
    with traffic:
        values + values  # reads it once, as it is one array
        values.view(2, 5).transpose(0, 1)
    assert traffic.moved == 3 * 40
    with traffic:
        values.add_(torch.ones(()).expand(10))
    assert traffic.moved == 3 * 40 + 4 + (40 + 4 + 40)
    small, large = (rates.moved_bytes(tiny, size, "fp32") for size in (2, 4))
    assert small < large < 2 * small


def test_rates_are_positive_and_the_status_is_read() -> None:
    assert rates.REPEATS["cpu"] == 2
    assert memory._status("VmHWM") >= memory._status("VmRSS") > 2**20
    assert figures.device_name(CPU).endswith(f", {torch.get_num_threads()} threads")


@pytest.mark.slow
def test_the_memory_of_a_process_of_its_own() -> None:
    """At least fp32 weights and both moments; more images take more; another's package itself does not count."""
    model = partial(comparisons.named_model, "tiny/16", 64)
    parameters = sum(parameter.numel() for parameter in model("meta").parameters())
    few, many = (memory.peak_of_process(Candidate("", model, Way()), count) for count in (2, 64))
    theirs = memory.peak_of_process(Candidate("", model, Way("huggingface", "fp32", fused=False)), 2)
    assert few is not None
    assert many is not None
    assert theirs is not None
    assert 12 * parameters < few < 12 * parameters + 600e6
    assert many > few + 60e6
    assert theirs == pytest.approx(few, rel=0.5)
