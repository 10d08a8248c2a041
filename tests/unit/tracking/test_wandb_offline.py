"""W&B's own file is read back: header of 7 bytes, then LevelDB's log format with protobuf records."""

import json
import struct

import torch
from wandb.proto.wandb_internal_pb2 import Record

from mae_lightning.pictures import draw_sheet
from mae_lightning.tracking import build_loggers, log_picture


def read_records(path):
    data, place, whole, block = path.read_bytes(), 7, b"", 32 * 1024
    while place + 7 <= len(data):
        if block - place % block < 7:
            place += block - place % block
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield Record.FromString(whole)
            whole = b""


def test_metrics_and_pictures_reach_the_offline_file(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    loggers = build_loggers(tmp_path, "run", "project", "offline")
    loggers[1].log_metrics({"val/loss": 0.25}, step=7)
    draw_sheet({"original": torch.rand(1, 1, 8, 8)}, tmp_path / "picture.png", "caption")
    log_picture(loggers, "val/reconstructions", tmp_path / "picture.png", step=8)
    loggers[1].experiment.finish()
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    history = [
        {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
        for record in read_records(file)
        if record.HasField("history")
    ]
    assert any(row.get("val/loss") == "0.25" for row in history)
    (picture,) = [json.loads(row[key]) for row in history if (key := "val/reconstructions/filenames") in row]
    assert (file.parent / "files" / picture[0]).is_file()


def test_the_id_stays_with_the_folder(tmp_path):
    first, second = (build_loggers(tmp_path, "run", "project", "offline")[1] for _ in range(2))
    other = build_loggers(tmp_path / "other", "run", "project", "offline")[1]
    assert first.version == second.version
    assert first.version != other.version


def test_off_writes_the_table_alone(tmp_path):
    assert [type(logger).__name__ for logger in build_loggers(tmp_path, "run", "project", "off")] == ["MetricsCSV"]
