"""`plan`: what it takes from recipes, without their data, and the network that it measures."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mae_lightning.cli.configured import read_configured
from mae_lightning.cli.plan import _at_pace
from mae_lightning.planning.communication import MEASURED_SIZES, fit_link, published_network
from mae_lightning.planning.hardware import GPUS, PRECISIONS
from mae_lightning.planning.setting import Setting

NANO = "--model.init_args.encoder=nano/16"
BAND = 4


def test_a_recipe_with_its_data(cli: Callable) -> None:
    options = ("--devices=2", "--cores=4", "--images-per-second=2000", "--out=a/p.json", "--out=a/p.png")
    outcome = cli("plan", "--config=quickstart/pretrain", *options)
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("quickstart/pretrain on 2 GPUs, H100 SXM 80 GB: ddp, bf16-mixed\n")
    figures = json.loads(Path("a/p.json").read_text())
    assert figures["cost"]["parameters"] == 788_368
    assert figures["facts"]["num_images"] == 5000
    assert figures["facts"]["image_bytes"] < 2000
    assert figures["steps"] == 18 * (5000 // 64)
    assert figures["memory"]["ddp"]["weights"] == 4 * 788_368
    assert figures["time"]["computing"] == pytest.approx(32 / 2000)
    assert {lever["name"] for lever in figures["levers"]} >= {"decoder of 1 block", "fsdp", "more cores"}
    assert Path("a/p.png").read_bytes().startswith(b"\x89PNG")


def test_a_recipe_without_its_data(cli: Callable) -> None:
    more = ("--config=trainer/fsdp", "--config=trainer/activation_checkpointing", "--trainer.num_nodes=2")
    outcome = cli("plan", "--config=imagenet/finetune_base", *more, NANO, "--devices=4", "--out=p.json")
    assert outcome.code == 0, outcome.err
    first, second = outcome.out.splitlines()[:2]
    assert first.endswith("planned without the data, as ImageNet-1k: 1,281,167 images, 1,000 classes")
    assert second.endswith("on 2 nodes of 4 GPUs, H100 SXM 80 GB: fsdp, bf16-mixed, activation checkpointing")
    figures = json.loads(Path("p.json").read_text())
    assert figures["steps"] == 100 * (1_281_167 // 1024)
    assert figures["setting"]["precision"]["name"] == "bf16-mixed"
    assert figures["feeding"]["is_measured"] is False


def test_configs_and_settings_keep_their_order(cli: Callable) -> None:
    outcome = cli("plan", "--trainer.max_epochs=1", "-c", "quickstart/pretrain", "--out=p.json")
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("quickstart/pretrain on 1 GPU")
    assert json.loads(Path("p.json").read_text())["steps"] == 18 * (5000 // 64)
    Path("my.yaml").write_text("seed_everything: null\n")
    outcome = cli("doctor", "--config=quickstart/pretrain", "--seed_everything=5", "-c", "my.yaml")
    line = "seed_everything: expected true or false or an integer, not null (in my.yaml)"
    assert (outcome.code, outcome.err) == (2, f"error: {line}\n")


def test_doctor_waits_for_a_number_of_seconds(cli: Callable) -> None:
    outcome = cli("doctor", "--config=quickstart/pretrain", "--timeout=nan")
    assert (outcome.code, outcome.err) == (2, "error: --timeout nan: must be above 0 and have an end\n")


def test_figures_that_are_given(cli: Callable) -> None:
    Path("link.json").write_text('{"latency": 1e-4, "bandwidth": 1e9}')
    Path("bench.json").write_text('{"costs": {"whole": {"median": 4.0}}}')
    data = ("--config=imagenet/scratch_base", NANO, "--data.init_args.train=elsewhere.tar", "--images=10000")
    machines = ("--gpu=v100", "--tflops=90", "--efficiency=0.3", "--precision=32-true", "--link=link.json")
    outcome = cli("plan", *data, "--classes=7", *machines, "--bench=bench.json", "--out=p.json")
    assert outcome.code == 0, outcome.err
    figures = json.loads(Path("p.json").read_text())
    assert (figures["facts"]["num_images"], figures["facts"]["num_classes"]) == (10000, 7)
    assert figures["setting"]["tflops"] == 90
    assert figures["setting"]["network"] == {"latency": 1e-4, "bandwidth": 1e9}
    assert figures["feeding"]["images_a_core"] == 250
    rate = 0.3 * 90e12
    assert figures["time"]["computing"] == pytest.approx(4096 * figures["flops_per_image"] / rate)


MISTAKES = {
    "": "nothing to plan: give --config RECIPE, such as imagenet/pretrain_large",
    "--config quickstart/pretrain --gpu h1000": "plan: argument --gpu: invalid choice: 'h1000'",
    "--config quickstart/pretrain --efficiency 40": "plan: argument --efficiency: 40 is not above 0 and at most 1",
    "--config quickstart/pretrain --out plan.txt": "figures are kept as .json, pictures as .png or .svg",
    "--config quickstart/pretrain --devices 3": "global_batch_size 64 does not divide by 3 devices",
    "--config quickstart/pretrain --trainer.max_epoch=3": "trainer.max_epoch",
    "--config no/such": "config 'no/such' is neither a file nor a shipped config",
    "--config quickstart/finetune --data.init_args.train=x.tar": "the number of classes is unknown",
    "--config quickstart/pretrain --seed_everything=-1": "seed_everything: expected 0 to 4294967295, not -1",
    "--measure-network": "--measure-network needs processes: torchrun --nproc-per-node=2",
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_mistakes_are_one_line(cli: Callable, arguments: str) -> None:
    outcome = cli("plan", *arguments.split())
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert MISTAKES[arguments] in outcome.err
    assert outcome.err.count("\n") == 1


def test_a_pace_beyond_the_rate() -> None:
    gpu, precision = GPUS["h100"], PRECISIONS["bf16-mixed"]
    setting = Setting(gpu, 1, 1, "ddp", precision, 0.4, 100.0, False, published_network(100.0))
    assert _at_pace(setting, 1e11, 500.0).efficiency == pytest.approx(0.5)
    with pytest.raises(ValueError, match=r"2000 is 2 times what 100 TFLOP/s allow; give that of one GPU"):
        _at_pace(setting, 1e11, 2000.0)


def test_a_model_of_any_size_takes_no_memory(here: Path) -> None:
    configured = read_configured(["--config=quickstart/pretrain", "--trainer.devices=3", "--seed_everything=5"])
    data = configured.build_data()
    assert configured.seed == data.seed == 5
    assert configured.trainer["devices"] == "3"
    assert configured.trainer["max_epochs"] == 18
    assert configured.data["global_batch_size"] == 64
    assert configured.run.name is None
    model = configured.build_model(data)
    assert {value.device.type for value in (*model.parameters(), *model.buffers())} == {"meta"}
    assert model.model.image_size == data.image_size
    assert model.global_batch_size == 64
    real = configured.build_model(data, device="cpu")
    assert {value.device.type for value in real.parameters()} == {"cpu"}


def test_the_network_is_measured_and_predicts_a_size_left_out(program: Callable) -> None:
    """Two gloo processes; the band is wide because the machine may be busy, and still tells bits from bytes."""
    torchrun = ("-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "mae_lightning")
    outcome = program("plan", "--measure-network", "--out=link.json", command=torchrun)
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("2 processes: latency ")
    content = json.loads(Path("link.json").read_text())
    times = {int(size): seconds for size, seconds in content["seconds"].items()}
    assert tuple(times) == MEASURED_SIZES
    left_out = MEASURED_SIZES[-2]
    link = fit_link({size: seconds for size, seconds in times.items() if size != left_out}, 2)
    assert times[left_out] / BAND < 2 * link.gather(float(left_out), 2) < BAND * times[left_out]
    whole = fit_link(times, 2)
    assert (whole.latency, whole.bandwidth) == pytest.approx((content["latency"], content["bandwidth"]))
