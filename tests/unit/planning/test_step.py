"""What a step computes and keeps, against torch's memory tracker on real tensors and against closed forms."""

from contextlib import nullcontext
from functools import cache

import pytest
import torch
from torch.distributed._composable import checkpoint
from torch.distributed._tools.mem_tracker import MemTracker

from mae_lightning.models import TransformerDecoder, fuse_attention, repeated_blocks, step_flops
from mae_lightning.planning import step
from mae_lightning.planning.hardware import PRECISIONS
from mae_lightning.planning.levers import with_shallow_decoder
from mae_lightning.planning.memory import kept_bytes
from mae_lightning.planning.step import StepCost, count_step, training_loss
from mae_lightning.tasks import Classification, MAEPretraining, SimMIMPretraining, Task, TokenizerTraining

SIZE, BATCH = (28, 28), 16
DATA = {"image_size": SIZE, "num_channels": 1, "mean": (0.5,), "std": (0.5,)}


def masked() -> Task:
    return MAEPretraining("nano/4", TransformerDecoder(depth=2, dim=64, num_heads=4), **DATA)


def classifier(**settings: object) -> Task:
    return Classification("nano/4", num_classes=10, **DATA, **settings)


TASKS = {"masked": masked, "classifier": classifier}


@cache
def cost_of(name: str, precision: str) -> StepCost:
    """Of one of the tasks with all its parameters training: torch's tracker does not take frozen ones."""
    return count_step(TASKS[name]().requires_grad_(True), SIZE, 1, PRECISIONS[precision])


class OtherTask(Task):
    features = card = summary = None


def measured(task: Task, precision: str) -> tuple[dict[str, int], dict[str, int]]:
    """Bytes by kind after the forward pass, and at the end of the step, of the task's own second training step."""
    fuse_attention(task)
    batch = {
        "image": torch.zeros(BATCH, 1, *SIZE, dtype=torch.uint8),
        "label": torch.arange(BATCH) % 10,
        "index": torch.arange(BATCH),
        "valid": torch.ones(BATCH, dtype=torch.bool),
    }
    task.log = task.log_loss = lambda *_, **__: None  # there is no trainer
    optimizer = torch.optim.AdamW(task.parameters())
    tracker = MemTracker()
    tracker.track_external(task, optimizer)
    with tracker:
        for _ in range(2):
            with torch.autocast("cpu", torch.bfloat16) if PRECISIONS[precision].is_autocast else nullcontext():
                loss = task.training_step(batch, 0)
            forward = tracker.get_tracker_snapshot("current")[torch.device("cpu")]
            loss.backward()
            optimizer.step()
            backward = tracker.get_tracker_snapshot("current")[torch.device("cpu")]
            optimizer.zero_grad()
            tracker.reset_mod_stats()
    return tuple({str(kind).split(".")[-1]: size for kind, size in part.items()} for part in (forward, backward))


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_parts_are_what_torch_tracks(name: str, precision: str) -> None:
    cost = cost_of(name, precision)
    forward, backward = measured(TASKS[name]().requires_grad_(True), precision)
    assert forward["ACT"] == pytest.approx(cost.kept.at(BATCH), rel=0.02)
    assert forward["PARAM"] == 4 * cost.parameters
    assert backward["GRAD"] == 4 * cost.trained
    assert backward["OPT"] == pytest.approx(4 * cost.trained * cost.optimiser_values, rel=0.01)


@pytest.mark.parametrize("name", TASKS)
def test_recomputed_blocks_keep_what_torch_tracks(name: str) -> None:
    task = TASKS[name]().requires_grad_(True)
    cost = cost_of(name, "32-true")
    for block in repeated_blocks(task):
        checkpoint(block)
    forward, _ = measured(task, "32-true")
    assert forward["ACT"] == pytest.approx(cost.kept_outside.at(BATCH) + cost.block_inputs.at(BATCH), rel=0.05)
    assert kept_bytes(cost, recomputes=True).at(BATCH) < 0.5 * cost.kept.at(BATCH)


def test_memory_is_linear_in_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    near = cost_of("masked", "bf16-mixed")
    monkeypatch.setattr(step, "COUNTED_AT", (5, 24))
    far = count_step(masked().requires_grad_(True), SIZE, 1, PRECISIONS["bf16-mixed"])
    assert near.kept.fixed == far.kept.fixed > 0
    assert near.kept.per_image == far.kept.per_image
    assert near.block_inputs == far.block_inputs


def test_16_bit_weights_halve_what_is_kept() -> None:
    full = cost_of("masked", "32-true")
    half = cost_of("masked", "bf16-true")
    assert half.flops == full.flops
    assert 0.5 * full.kept.per_image <= half.kept.per_image < 0.65 * full.kept.per_image
    assert half.kept.fixed == 0


@pytest.mark.parametrize(("encoder", "gflops"), [("base/16", 58.5), ("large/16", 124.2)])
def test_flops_of_the_papers_models(encoder: str, gflops: float) -> None:
    with torch.device("meta"):
        task = MAEPretraining(encoder)
    cost = count_step(task, (224, 224), 3, PRECISIONS["32-true"])
    assert cost.flops / 1e9 == pytest.approx(gflops, rel=0.02)
    assert cost.flops == pytest.approx(step_flops(task.model, task.num_kept), rel=0.02)
    assert {parameter.device.type for parameter in task.parameters()} == {"meta"}


def test_flops_of_a_classifier() -> None:
    """24 N d^2 and 4 N^2 d a block, for N tokens of width d; backward twice that, but not to the pixels."""
    task = classifier()
    tokens, dim, depth = 50, task.model.embed_dim, len(task.model.blocks)
    blocks = depth * (24 * tokens * dim**2 + 4 * tokens**2 * dim)
    cost = cost_of("classifier", "32-true")
    embedding = 2 * 49 * 16 * dim
    assert cost.forward_flops == pytest.approx(blocks + embedding + 2 * dim * 10, rel=1e-6)
    attention_again = depth * 2 * tokens**2 * dim  # the fused kernel computes the scores once more
    assert cost.backward_flops == pytest.approx(2 * blocks + attention_again + embedding + 4 * dim * 10, rel=1e-6)


def test_frozen_blocks_keep_nothing() -> None:
    cost = count_step(classifier(trainable_blocks=0), SIZE, 1, PRECISIONS["bf16-mixed"])
    whole = cost_of("classifier", "bf16-mixed")
    assert cost.kept.per_image < 0.02 * whole.kept.per_image
    assert cost.recomputed_flops == 0
    assert cost.block_inputs.per_image == 0
    assert cost.backward_flops < 0.01 * cost.forward_flops
    assert 0.5 * whole.working.per_image < cost.working.per_image < whole.working.per_image


def test_other_tasks_are_counted() -> None:
    swin = SimMIMPretraining("swin-nano/2", image_size=(32, 32), num_channels=1, mean=(0.5,), std=(0.5,))
    cost = count_step(swin, (32, 32), 1, PRECISIONS["32-true"])
    assert cost.flops == pytest.approx(step_flops(swin.model, swin.num_kept), rel=0.02)
    assert cost.num_blocks > 0
    tokenizer = TokenizerTraining(4, 16, 8, **DATA)
    cost = count_step(tokenizer, SIZE, 1, PRECISIONS["32-true"])
    assert cost.num_blocks == cost.recomputed_flops == 0
    assert cost.outside_blocks == cost.parameters
    with pytest.raises(ValueError, match="OtherTask: only this package's own tasks can be planned"):
        training_loss(OtherTask(), torch.zeros(1))


def test_a_shallow_decoder() -> None:
    task = masked()
    shallow = with_shallow_decoder(task)
    assert shallow is not None
    assert len(shallow.model.decoder.blocks) == 1
    assert len(task.model.decoder.blocks) == 2
    assert count_step(shallow, SIZE, 1, PRECISIONS["32-true"]).flops < cost_of("masked", "32-true").flops
    assert with_shallow_decoder(shallow) is None
    assert with_shallow_decoder(classifier()) is None


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["small/16", "base/16"])
def test_parts_are_what_a_gpu_allocates(name: str) -> None:
    """Gradients stay from a first step, as under accumulation, so that they lie there beside all activations."""
    task, precision, count = MAEPretraining(name).cuda(), PRECISIONS["bf16-mixed"], 64
    cost = count_step(task, (224, 224), 3, precision)
    optimizer = torch.optim.AdamW(task.parameters(), fused=True)
    images = torch.zeros(count, 3, 224, 224, dtype=torch.uint8, device="cuda")
    for number in range(3):
        torch.cuda.reset_peak_memory_stats()
        with torch.autocast("cuda", torch.bfloat16):
            loss = training_loss(task, images)
        loss.backward()
        if number < 2:
            optimizer.step()
    expected = 4 * (cost.parameters + cost.trained * 3) + cost.kept.at(count) + cost.working.at(count)
    assert torch.cuda.max_memory_allocated() == pytest.approx(expected, rel=0.15)
