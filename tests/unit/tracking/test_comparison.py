"""Reports on fabricated trials, against figures computed by hand."""

import json
import re
from dataclasses import replace

import pytest
import torch

from mae_lightning.commands.stages import write_json
from mae_lightning.models import ViTSize
from mae_lightning.tasks import Classification
from mae_lightning.tracking import report_maps
from mae_lightning.tracking.comparison import compare
from mae_lightning.tracking.report_pages import write_report
from mae_lightning.tracking.report_tables import outcome, plain_rows, sentences, tables
from mae_lightning.tracking.studies import STUDIES, Column
from mae_lightning.tracking.trials import read_trials

FINETUNE, LINEAR = "trial/finetune_accuracy", "trial/probe_accuracy"


def fabricate(folder, study, parameters, seed, metrics, draws=(), finished=True):
    write_json(
        folder / "trial.json",
        {
            "study": study,
            "seed": seed,
            "parameters": {"seed": str(seed), **parameters},
            "code": "0.1.0+abc",
            "finished": finished,
            "metrics": metrics,
            "draws": dict(draws),
            "stages": {
                "pretrain": {"folder": "pretrain", "seconds": 60.0, "config": "c0ffee", "manifest": "f00d"},
                "finetune": {"folder": "finetune", "seconds": 30.0, "config": "beef"},
            },
        },
    )


@pytest.fixture
def sampling(tmp_path):
    """Table 1f: over three seeds random beats grid by 1.5, 2 and 2.5 points; block 75 % and it are a tie."""
    values = {
        "none": [0.80, 0.82, 0.84],
        "ablations/mask_grid": [0.785, 0.80, 0.815],
        "trainer/cpu+ablations/mask_block": [0.85, 0.80, 0.82],
    }
    for overlay, accuracies in values.items():
        for seed, accuracy in enumerate(accuracies):
            folder = tmp_path / f"{overlay.replace('/', '-')}-{seed}"
            metrics = {FINETUNE: accuracy, "trial/pretrain_loss": 0.1}
            fabricate(folder, "quickstart/table_1f", {"pretrain.config": overlay}, seed, metrics)
    fabricate(tmp_path / "open", "quickstart/table_1f", {"pretrain.config": "none"}, 9, {}, finished=False)
    return tmp_path


def test_cells_and_differences_are_those_computed_by_hand(sampling):
    trials, unfinished = read_trials([sampling])
    assert unfinished == [sampling / "open"]
    (comparison,) = compare(trials)
    cells = {line.row.label: line.cells[FINETUNE] for line in comparison.lines if line.cells}
    assert cells["random 75 %"].mean == pytest.approx(82)
    # t(0.975, 2) = 4.302653 times the deviation 2 over the root of 3
    assert cells["random 75 %"].half_width == pytest.approx(4.302653 * 2 / 3**0.5, rel=1e-6)
    by_row = {verdict.first: verdict for verdict in comparison.verdicts()}
    grid, block = by_row["grid 75 %"], by_row["block 75 %"]
    assert grid.ours.mean == pytest.approx(-2)
    assert grid.ours.half_width == pytest.approx(4.302653 * 0.5 / 3**0.5, rel=1e-6)
    assert grid.paper == pytest.approx(-0.9)
    assert outcome(grid) == "agrees"
    # -5, 2, 2 points: mean one third, deviation 4.04
    assert block.ours.mean == pytest.approx(1 / 3, abs=1e-9)
    assert outcome(block) == "a tie: the interval holds 0"
    assert set(by_row) == {"grid 75 %", "block 75 %"}


def test_ranking_counts_every_pair(sampling):
    (comparison,) = compare(read_trials([sampling])[0])
    # random above grid agrees; random with block and block with grid (6.5, 0, 0.5: mean 2.3 +- 9) are ties
    assert comparison.ranking(comparison.study.columns[0]) == {"agrees": 1, "disagrees": 0, "tie": 2, "open": 0}
    assert "3 pairs of rows with the paper's figures, 1 agree, 0 disagree, 2 are ties" in next(sentences(comparison))


def test_a_contrary_difference_disagrees(tmp_path):
    for seed, (with_token, without) in enumerate([(0.9, 0.8), (0.91, 0.8), (0.92, 0.81)]):
        for value, accuracy in ((True, with_token), (False, without)):
            parameters = {"pretrain.model.init_args.mask_token_in_encoder": str(value)}
            fabricate(tmp_path / f"{value}{seed}", "quickstart/table_1c", parameters, seed, {LINEAR: accuracy})
    (comparison,) = compare(read_trials([tmp_path])[0])
    (verdict,) = comparison.verdicts()
    assert verdict.paper == pytest.approx(59.6 - 73.5)
    assert outcome(verdict) == "disagrees"


def test_one_pair_settles_nothing_and_equal_rows_of_the_paper_are_equal(tmp_path):
    for depth, accuracy in ((8, 0.8), (1, 0.7)):
        parameters = {"pretrain.model.init_args.decoder.init_args.depth": str(depth)}
        fabricate(tmp_path / str(depth), "imagenet/table_1a", parameters, 0, {FINETUNE: accuracy})
    (comparison,) = compare(read_trials([tmp_path])[0])
    (verdict,) = comparison.verdicts()
    assert outcome(verdict) == "open: one pair tells nothing of chance"
    for depth, accuracies in ((8, (0.81, 0.82)), (2, (0.81, 0.82)), (4, (0.9, 0.91))):
        for seed, accuracy in enumerate(accuracies, start=1):
            parameters = {"pretrain.model.init_args.decoder.init_args.depth": str(depth)}
            fabricate(tmp_path / f"{depth}-{seed}", "imagenet/table_1a", parameters, seed, {FINETUNE: accuracy})
    (comparison,) = compare(read_trials([tmp_path])[0])
    said = {verdict.first: outcome(verdict) for verdict in comparison.verdicts()}
    assert said["2"] == "agrees"
    assert said["4"] == "disagrees"


def test_values_that_the_paper_lacks_come_after_its_rows(tmp_path):
    for ratio in (0.95, 0.75, 0.05):
        parameters = {"pretrain.model.init_args.mask_ratio": str(ratio)}
        fabricate(tmp_path / str(ratio), "quickstart/figure_5", parameters, 0, {FINETUNE: ratio})
    (comparison,) = compare(read_trials([tmp_path])[0])
    assert [line.row.label for line in comparison.lines[-3:]] == ["90%", "0.05", "0.95"]
    assert comparison.reference.row.label == "75%"


def test_small_widths_stand_for_the_papers_and_speed_is_relative(tmp_path):
    parameters = {"pretrain.model.init_args.decoder.init_args.dim": "128"}
    for scale, label in (("quickstart", "1024"), ("imagenet", "128")):
        fabricate(tmp_path / scale, f"{scale}/table_1b", parameters, 0, {FINETUNE: 0.8})
        (comparison,) = compare(read_trials([tmp_path / scale])[0])
        assert [line.row.label for line in comparison.lines if line.cells] == [label]
    for overlay, pace in (("ablations/mask_token_in_encoder", 100.0), ("none", 250.0)):
        metrics = {"trial/pretrain_images_per_second": pace}
        fabricate(tmp_path / "t2" / str(pace), "quickstart/table_2", {"pretrain.config": overlay}, 0, metrics)
    (comparison,) = compare(read_trials([tmp_path / "t2"])[0])
    assert [row[2] for row in tables(comparison)[0].rows] == ["1.00", "2.50", "–"]


def test_flops_are_multiples_of_the_default_rows(tmp_path):
    flops = "trial/pretrain_flops_per_image"
    for value, cost in ((True, 402e9), (False, 124e9)):
        parameters = {"pretrain.model.init_args.mask_token_in_encoder": str(value)}
        fabricate(tmp_path / str(value), "imagenet/table_1c", parameters, 0, {FINETUNE: 0.8, flops: cost})
    (comparison,) = compare(read_trials([tmp_path])[0])
    table = tables(comparison)[0]
    assert table.headings[5:7] == ["FLOPs, paper", "FLOPs, ours"]
    assert [row[5:7] for row in table.rows] == [["3.3x", "3.24x, 402 G"], ["1.0x", "1.00x, 124 G"]]
    assert [row["FLOPs"] for row in plain_rows(comparison)][::2] == [402e9, 124e9]
    assert {verdict.column.metric for verdict in comparison.verdicts()} == {FINETUNE}


def test_a_masked_loss_is_no_column():
    with pytest.raises(AssertionError):
        Column("trial/pretrain_loss", "loss")


@pytest.mark.parametrize("fault", ["seed", "study", "axis", "hidden", "empty"])
def test_what_cannot_be_compared_is_said(tmp_path, fault):
    parameters = {} if fault == "axis" else {"pretrain.config": "***" if fault == "hidden" else "none"}
    study = "quickstart/table_9z" if fault == "study" else "quickstart/table_1f"
    if fault != "empty":
        fabricate(tmp_path / "a", study, parameters, 0, {FINETUNE: 0.5})
        fabricate(tmp_path / "b", study, parameters, 0 if fault == "seed" else 1, {FINETUNE: 0.5})
    said = {
        "seed": "one seed",
        "study": "no study 'table_9z'",
        "axis": "does not set",
        "hidden": "a hides its value of pretrain.config; run its trial again",
        "empty": "no trial",
    }
    with pytest.raises((ValueError, FileNotFoundError), match=said[fault]):
        compare(read_trials([tmp_path])[0])


def test_every_format_has_the_figures_and_the_page_fetches_nothing(sampling, tmp_path):
    comparisons = compare(read_trials([sampling])[0])
    files = write_report(comparisons, tmp_path / "out")
    names = ["report.md", "report.tex", "report.html", "report.json", "quickstart-table_1f.png"]
    assert [file.name for file in files] == [*names, "quickstart-table_1f.pdf"]
    texts = {file.suffix: file.read_text() for file in files if file.suffix in (".md", ".tex", ".html")}
    for text in texts.values():
        assert "grid 75" in text
        assert "80.0" in text
    assert "| random 75 % * | 84.9 | 82.0 ± 5.0 | 73.5 | – | 0, 1, 2 | 1.5 |" in texts[".md"]
    assert "pretrain config c0ffee, finetune config beef, pretrain manifest f00d" in texts[".md"]
    assert r"random 75 \% * & 84.9 & 82.0 $\pm$ 5.0 & 73.5 & -- & 0, 1, 2 & 1.5 \\" in texts[".tex"]
    assert texts[".tex"].count(r"\toprule") == 2
    assert "loss" not in texts[".tex"]
    assert re.findall(r"""(?:src|href)\s*=\s*["']?(.{5})""", texts[".html"]) == ["data:"]
    assert re.findall(r"https?://|url\(|@import|<script|<link", texts[".html"]) == []
    assert "data:image/png;base64,iVBOR" in texts[".html"]
    rows = json.loads((tmp_path / "out/report.json").read_text())
    assert {"study": "quickstart/table_1f", "row": "grid 75 %", "figure": "ft", "paper": 84.0}.items() <= rows[
        6
    ].items()
    assert files[4].read_bytes().startswith(b"\x89PNG")
    assert files[5].read_bytes().startswith(b"%PDF")


def test_an_earlier_report_beside_the_trials_is_no_trial(sampling):
    trials, _ = read_trials([sampling])
    write_report(compare(trials), sampling / "report")
    assert read_trials(sorted(sampling.iterdir()))[0] == trials
    (sampling / "report/report.json").unlink()
    with pytest.raises(FileNotFoundError, match="report has no trial in it"):
        read_trials(sorted(sampling.iterdir()))


def test_draws_of_one_training_are_paired(tmp_path, monkeypatch):
    few_shot = "trial/few_shot_accuracy"
    study = replace(STUDIES["table_1f"], columns=(Column(few_shot, "5-shot"),))
    monkeypatch.setitem(STUDIES, "table_1f", study)
    draws = {"none": [0.5, 0.6, 0.7], "ablations/mask_grid": [0.48, 0.57, 0.69]}
    for overlay, values in draws.items():
        folder = tmp_path / overlay.replace("/", "-")
        parameters = {"pretrain.config": overlay}
        fabricate(folder, "quickstart/table_1f", parameters, 0, {few_shot: 0.1}, {few_shot: values})
    (comparison,) = compare(read_trials([tmp_path])[0])
    (verdict,) = comparison.verdicts()
    assert verdict.ours.pairs == 3
    assert verdict.ours.mean == pytest.approx(-2)
    assert comparison.reference.cells[few_shot].mean == pytest.approx(60)


@pytest.mark.parametrize("fault", ["more seeds", "no draws"])
def test_rows_of_one_and_of_several_trainings_pair_by_seed(tmp_path, monkeypatch, fault):
    few_shot = "trial/few_shot_accuracy"
    study = replace(STUDIES["table_1f"], columns=(Column(few_shot, "5-shot"),))
    monkeypatch.setitem(STUDIES, "table_1f", study)
    for overlay, seeds in (("none", (0, 1) if fault == "more seeds" else (0,)), ("ablations/mask_grid", (0,))):
        for seed in seeds:
            folder = tmp_path / f"{overlay.replace('/', '-')}-{seed}"
            metrics = {few_shot: 0.5 if overlay == "none" else 0.4}
            draws = {} if fault == "no draws" and overlay == "none" else {few_shot: [0.1, 0.2]}
            fabricate(folder, "quickstart/table_1f", {"pretrain.config": overlay}, seed, metrics, draws)
    (comparison,) = compare(read_trials([tmp_path])[0])
    (verdict,) = comparison.verdicts()
    assert (verdict.ours.pairs, verdict.ours.mean) == (1, pytest.approx(-10))


def trained_classifier(folder, seed):
    """The finetune stage's checkpoint of a tiny ViT with learned positions."""
    torch.manual_seed(seed)
    size = {"image_size": (8, 8), "num_channels": 1, "mean": (0.5,), "std": (0.5,)}
    task = Classification(ViTSize(8, 1, 2, (4, 4)), positions="learned_1d", num_classes=2, **size)
    content = {"state_dict": task.state_dict()}
    task.on_save_checkpoint(content)
    (folder / "finetune/checkpoints").mkdir(parents=True)
    torch.save(content, folder / "finetune/checkpoints/last.ckpt")


def test_the_maps_of_position_embeddings_stand_side_by_side(tmp_path, monkeypatch):
    drawn = {}
    draw = report_maps.draw_similarities
    monkeypatch.setattr(
        report_maps, "draw_similarities", lambda panels, *words: drawn.update(panels) or draw(panels, *words)
    )
    for epochs, rate in ((7, 0.1), (14, 0.1), (14, 0.2)):
        folder = tmp_path / f"{epochs}-{rate}"
        axes = {"trainer.max_epochs": epochs, "model.init_args.base_lr": rate, "model.init_args.weight_decay": 0}
        parameters = {f"finetune.{name}": str(value) for name, value in axes.items()}
        fabricate(folder, "quickstart/vit_figure_9", parameters, 0, {FINETUNE: epochs / 100})
        if rate == 0.1:
            trained_classifier(folder, epochs)
    comparisons = compare(read_trials([tmp_path])[0])
    assert [line.row.label for line in comparisons[0].lines] == [
        "epochs 7, base lr 0.1, decay 0",
        "epochs 14, base lr 0.1, decay 0",
        "epochs 14, base lr 0.2, decay 0",
    ]
    files = write_report(comparisons, tmp_path / "out")
    assert [file.name for file in files[-2:]] == [
        f"quickstart-vit_figure_9-positions.{kind}" for kind in ("png", "pdf")
    ]
    assert [name.splitlines()[0] for name in drawn] == ["epochs 7", "epochs 14"]
    first, second = drawn.values()
    assert first.shape == (2, 2, 2, 2)
    assert not torch.equal(first, second)
    assert (tmp_path / "out/report.html").read_text().count("data:image/png;base64") == 1
    assert "quickstart-vit_figure_9-positions.png" in (tmp_path / "out/report.md").read_text()
