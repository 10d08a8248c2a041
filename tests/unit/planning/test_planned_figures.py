"""Memory, time, input and levers of a made-up step whose every figure can be worked out by hand."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mae_lightning.planning.communication import Link, published_network
from mae_lightning.planning.feeding import IMAGES_A_CORE, feeding, images_a_core_of
from mae_lightning.planning.hardware import GIB, GPUS, PRECISIONS, precision_of
from mae_lightning.planning.memory import USABLE, memory_of
from mae_lightning.planning.picture import write
from mae_lightning.planning.plan import Length, Plan, make_plan
from mae_lightning.planning.setting import DataFacts, Setting
from mae_lightning.planning.step import Bytes, StepCost
from mae_lightning.planning.timing import BUCKET, START, divided, scaling, shapes, step_time
from mae_lightning.planning.wording import lines_of

MILLION = 10**6
COST = StepCost(
    parameters=100 * MILLION,
    trained=100 * MILLION,
    largest_block=7 * MILLION,
    outside_blocks=16 * MILLION,
    num_blocks=12,
    optimiser_values=2,
    forward_flops=20e9,
    backward_flops=40e9,
    recomputed_flops=18e9,
    operations=1000,
    kept=Bytes(200e6, 50e6),
    kept_outside=Bytes(10e6, 2e6),
    block_inputs=Bytes(0.0, 5e6),
    kept_in_block=Bytes(15e6, 4e6),
    working=Bytes(0.0, 1e6),
)
SETTING = Setting(
    gpu=GPUS["a100"],
    devices=8,
    nodes=4,
    strategy="ddp",
    precision=PRECISIONS["bf16-mixed"],
    efficiency=0.5,
    tflops=300.0,
    recomputes=False,
    network=published_network(1600.0),
)
FACTS = DataFacts((224, 224), 3, 1000, 4096, 0, num_images=1_281_167)


def plan(**changes: object) -> Plan:
    length = Length(100, None)
    return make_plan("some/recipe", COST, replace(SETTING, **changes), FACTS, length)


def test_memory_of_ddp() -> None:
    memory = memory_of(COST, SETTING)
    assert (memory.weights, memory.gradients, memory.optimiser) == (400e6, 400e6, 800e6)
    assert (memory.gathered, memory.copies, memory.per_image) == (0, 200e6, 51e6)
    assert memory.total(10) == sum(memory.parts(10).values()) == 1800e6 + 510e6
    assert memory.usable == USABLE * 79.3 * GIB
    fits = memory.largest_micro_batch
    assert memory.total(fits) <= memory.usable < memory.total(fits + 1)


def test_memory_of_fsdp() -> None:
    """Everything but what is whole for a while and what is kept is divided by the 32 GPUs."""
    memory = memory_of(COST, replace(SETTING, strategy="fsdp"))
    assert (memory.weights, memory.gradients, memory.optimiser) == (400e6 / 32, 400e6 / 32, 800e6 / 32)
    assert memory.gathered == 4 * (16 + 3 * 7) * MILLION
    assert (memory.copies, memory.per_image) == (200e6, 51e6)
    alone = memory_of(COST, replace(SETTING, strategy="fsdp", devices=1, nodes=1))
    assert (alone.weights, alone.gathered) == (400e6, 0)


def test_memory_of_recomputed_blocks() -> None:
    memory = memory_of(COST, replace(SETTING, recomputes=True))
    assert (memory.copies, memory.per_image) == (25e6, 12e6)


def test_a_model_that_does_not_fit() -> None:
    huge = replace(COST, parameters=10**10, trained=10**10)
    assert memory_of(huge, SETTING).largest_micro_batch == 0
    unfit = make_plan("huge", huge, SETTING, FACTS, Length(1, None))
    assert not unfit.fits
    assert "DOES NOT FIT: not even one image; what follows is reckoned as if one did" in lines_of(unfit)
    sharded = make_plan("huge", huge, replace(SETTING, strategy="fsdp"), FACTS, Length(1, None))
    assert sharded.fits


def test_time_of_one_gpu() -> None:
    alone = replace(SETTING, devices=1, nodes=1)
    time = step_time(COST, alone, 128, 32)
    assert time.computing == pytest.approx(4096 * 60e9 / 150e12)
    assert time.optimiser == pytest.approx(7 * 400e6 / 2039e9)
    assert time.sending == time.exposed == 0
    again = step_time(COST, replace(alone, recomputes=True), 128, 32)
    assert again.computing == pytest.approx(time.computing * 78 / 60)
    assert step_time(COST, alone, 1, 1).computing == pytest.approx(1000 * START)


def test_ddp_sends_once_a_step_beside_the_backward_pass() -> None:
    buckets = -(-400 * MILLION // BUCKET)
    sending = buckets * SETTING.cluster.all_reduce(400e6 / buckets)
    many, one = step_time(COST, SETTING, 128, 4), step_time(COST, SETTING, 512, 1)
    assert many.sending == one.sending == pytest.approx(sending)
    assert one.exposed == pytest.approx(sending / buckets)
    slow = replace(SETTING, network=Link(0.0, 1e9))
    exposed = step_time(COST, slow, 128, 1)
    backward = 128 * 40e9 / 150e12
    assert exposed.sending > 10 * backward
    assert exposed.exposed == pytest.approx(exposed.sending - backward * (buckets - 1) / buckets)


def test_fsdp_sends_every_micro_batch() -> None:
    sharded = replace(SETTING, strategy="fsdp")
    one = step_time(COST, sharded, 128, 1)
    gather = 13 * SETTING.cluster.gather(400e6 / 13)
    assert one.sending == pytest.approx(3 * gather)
    assert one.exposed == pytest.approx(3 * gather / 13)
    assert step_time(COST, sharded, 128, 4).sending == pytest.approx(4 * one.sending)
    assert one.optimiser == pytest.approx(step_time(COST, SETTING, 128, 1).optimiser / 32)


def test_shapes() -> None:
    assert list(shapes(8))[:6] == [(1, 1), (2, 1), (4, 1), (8, 1), (8, 2), (8, 4)]
    assert list(shapes(6)) == [(1, 1), (2, 1), (4, 1), *((6, 2**power) for power in range(8))]
    assert all(devices * nodes <= 1024 for devices, nodes in shapes(8))


def test_scaling() -> None:
    rows = scaling(COST, SETTING, 4096)
    assert [row.gpus for row in rows] == [2**power for power in range(11)]
    assert rows[0].efficiency == rows[0].efficiency_at_same_share == 1
    assert all(row.gpus * row.micro_batch * row.accumulation == 4096 for row in rows)
    efficiencies = [row.efficiency for row in rows]
    assert efficiencies == sorted(efficiencies, reverse=True)
    assert efficiencies[-1] < 0.2
    here = rows[5]
    assert here.gpus * here.efficiency * rows[0].images_per_second == pytest.approx(here.images_per_second)
    assert here.images_per_second == pytest.approx(plan().images_per_second)
    assert [row.gpus for row in scaling(COST, SETTING, 96)] == [1, 2, 4, 8, 16, 32]
    single = replace(SETTING, devices=1, nodes=1)
    assert [row.nodes for row in scaling(COST, single, 4096)][:5] == [1, 1, 1, 1, 2]


def test_the_micro_batch_is_the_largest_that_fits_and_divides() -> None:
    small = replace(SETTING, gpu=GPUS["rtx4090"], devices=1, nodes=1)
    fits = memory_of(COST, small).largest_micro_batch
    assert 256 < fits < 512
    assert divided(COST, small, 4096) == (256, 16)
    assert divided(COST, replace(small, max_micro_batch_size=100), 4096) == (64, 64)
    with pytest.raises(ValueError, match="global_batch_size 4096 does not divide by 3 devices"):
        divided(COST, replace(small, devices=3), 4096)


def test_length() -> None:
    whole = plan()
    assert whole.steps == 100 * (1_281_167 // 4096)
    assert whole.hours == pytest.approx(whole.steps * whole.time.total / 3600)
    assert whole.gpu_hours == pytest.approx(32 * whole.hours)
    assert Length(100, 50).steps_of(FACTS) == 50
    assert Length(None, 50).steps_of(FACTS) == Length(9, 50).steps_of(replace(FACTS, num_images=None)) == 50
    unknown = make_plan("x", COST, SETTING, replace(FACTS, num_images=None), Length(100, None))
    assert unknown.hours is unknown.gpu_hours is None
    assert "unknown length: give --images" in "\n".join(lines_of(unknown))


def test_feeding(tmp_path: Path) -> None:
    needs = feeding(6870.0, None, None)
    assert needs.cores == pytest.approx(10)
    assert needs.megabytes_per_second == pytest.approx(6870 * 0.114)
    assert needs.images_a_core == IMAGES_A_CORE
    assert feeding(6870.0, 1e4, 100.0).cores == pytest.approx(68.7)
    file = tmp_path / "figures.json"
    with pytest.raises(FileNotFoundError, match=r"bench data --config RECIPE --out .*figures.json writes it"):
        images_a_core_of(file)
    file.write_text(json.dumps({"costs": {"whole": {"median": 2.0}}}))
    assert images_a_core_of(file) == 500
    file.write_text("{}")
    with pytest.raises(ValueError, match="is not what bench data --out has written"):
        images_a_core_of(file)


def test_levers() -> None:
    shallow = replace(COST, forward_flops=12e9, backward_flops=24e9, kept=Bytes(180e6, 30e6))
    length = Length(100, None)
    found = make_plan("some", COST, SETTING, FACTS, length, cores=16, shallow=shallow).levers
    by_name = {lever.name: lever for lever in found}
    names = [
        "decoder of 1 block",
        "fsdp",
        "activation checkpointing",
        "twice the network",
        "more cores",
        "re-encoded shards",
    ]
    assert list(by_name) == names
    assert 1.5 < by_name["decoder of 1 block"].speed < 60 / 36
    assert by_name["decoder of 1 block"].memory == pytest.approx(20e6 + 128 * 20e6)
    assert by_name["fsdp"].memory == pytest.approx(1600e6 * 31 / 32 - 4 * 37 * MILLION)
    assert 60 / 78 < by_name["activation checkpointing"].speed < 0.9
    assert by_name["twice the network"].speed > 1
    assert "GiB" not in by_name["twice the network"].effect
    needs = plan().feeding
    assert by_name["more cores"].speed == pytest.approx(needs.cores / 16)
    assert f"its 16 hold it to {16 / needs.cores:.0%}" in by_name["more cores"].effect
    alone = make_plan("some", COST, replace(SETTING, devices=1, nodes=1), FACTS, length, images_a_core=9e9, cores=2)
    assert [lever.name for lever in alone.levers] == ["activation checkpointing", "more cores", "re-encoded shards"]
    assert "its 2 are enough" in alone.levers[1].effect


def test_text_and_figures() -> None:
    whole = plan()
    text = "\n".join(lines_of(whole))
    assert text.startswith(
        "some/recipe on 4 nodes of 8 GPUs, A100 SXM 80 GB: ddp, bf16-mixed\ntaken: 50% of 300 TFLOP/s"
    )
    assert "compute  60 GFLOP an image: 20 forward, 40 backward" in text
    assert "batch    4,096: GPUs 32 x images 128 x passes 1" in text
    figures = json.loads(json.dumps(whole.figures()))
    assert figures["memory"]["ddp"]["total"] == whole.memory["ddp"].total(128)
    assert figures["gpu_hours"] == whole.gpu_hours
    assert [row["gpus"] for row in figures["scaling"]][-1] == 1024


def test_a_picture(tmp_path: Path) -> None:
    write(plan(), tmp_path / "new" / "plan.svg")
    drawn = (tmp_path / "new" / "plan.svg").read_text()
    assert drawn.startswith("<?xml")
    assert drawn.count('id="line2d') > 20


def test_precisions() -> None:
    assert precision_of("bf16") is precision_of("bf16-mixed")
    assert precision_of(32) is precision_of(None) is PRECISIONS["32-true"]
    with pytest.raises(ValueError, match="precision 64-true cannot be planned for"):
        precision_of("64-true")
    assert PRECISIONS["32-true"].tflops(GPUS["h100"]) == 67
    assert PRECISIONS["bf16-true"].tflops(GPUS["h100"]) == 989
