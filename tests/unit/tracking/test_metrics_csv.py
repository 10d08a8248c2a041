import csv

from mae_lightning.tracking.metrics_csv import MetricsCSV


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_that_goes_on_keeps_its_rows_and_replaces_lost_work(tmp_path):
    first = MetricsCSV(tmp_path)
    for step in (10, 20, 30):
        first.log_metrics({"train/loss": float(step)}, step=step)
    first.save()
    second = MetricsCSV(tmp_path)
    second.log_metrics({"train/loss": 21.0, "val/loss": 1.0}, step=20)
    second.log_metrics({"train/loss": 31.0}, step=30)
    second.save()
    assert [(row["step"], row["train/loss"]) for row in rows(tmp_path)] == [
        ("10", "10.0"),
        ("20", "21.0"),
        ("30", "31.0"),
    ]
    assert rows(tmp_path)[1]["val/loss"] == "1.0"


def test_a_fresh_folder_gets_a_header_and_nothing_else_is_written(tmp_path):
    log = MetricsCSV(tmp_path / "run")
    log.log_hyperparams({"secret": 1})
    log.log_metrics({"a": 1.0}, step=0)
    log.save()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["metrics.csv"]
