"""Run directories as trainings leave them, in a few milliseconds."""

import json

import cv2
import numpy as np
import pytest
import yaml

NAMES = ["road", "car"]


def write_run(folder, scores, seed=0, finished=True, madds=1e9, latency=None, classes=None, monitor="miou", **changes):
    """A run directory as the training leaves it, evaluated after every 10 steps of 4 pictures."""
    folder.mkdir(parents=True)
    config = {"seed": seed, "output_dir": str(folder), "data": {"batch_size": 4}, "optim": {"lr": 0.1}}
    config["model"] = {"backbone": {"name": "v2"}}
    for key, value in changes.items():
        section, name = key.split("__")
        config[section] = {**config[section], name: value}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    origin = {"monitor": monitor, "classes": {"names": NAMES, "colors": [[128, 64, 128], [0, 0, 142]]}, "device": "CPU"}
    origin["model"] = {"parameters": 3_200_000, "paper_madds": madds, "image_size": [64, 64]}
    origin["data"] = {"train": {"fingerprint": "a"}, "val": {"fingerprint": "b"}}
    (folder / "origin.json").write_text(json.dumps(origin))
    lines = []
    for number, score in enumerate(scores, 1):
        place = {"step": 10 * number, "epoch": 0, "images_seen": 40 * number, "seconds": number}
        lines.append({**place, "train/loss": 1 / number, "train/images_per_second": 100 if number > 1 else 1})
        per_class = dict(zip(NAMES, classes or (score, score), strict=True))
        lines.append({**place, f"val/{monitor}": score, **{f"val/iou/{k}": v for k, v in per_class.items()}})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if finished:
        (folder / "summary.json").write_text(json.dumps({"steps": 10 * len(scores)}))
    if latency:
        row = {"name": "x.ckpt", "runtime": "onnx", "image_size": [64, 128], "ms": latency, "spread": 0.01}
        (folder / "latency.json").write_text(json.dumps({"threads": 1, "rows": [row]}))
    pictures = folder / "pictures" / "latest"
    pictures.mkdir(parents=True)
    panels = {kind: f"00_{kind}.jpg" for kind in ("picture", "truth", "prediction")}
    for file in panels.values():
        cv2.imwrite(str(pictures / file), np.full((20, 30, 3), 100 + len(file), np.uint8))
    listed = [{"name": "street_1", "panels": panels}]
    (pictures / "pictures.json").write_text(json.dumps({"step": 10, "pictures": listed}))
    return folder


@pytest.fixture
def runs(tmp_path):
    """Two groups of three seeds, one with another backbone."""
    for seed, score in enumerate((0.50, 0.52, 0.54)):
        write_run(tmp_path / "runs" / f"a_seed{seed}", [0.3, score, score - 0.01], seed)
        changes = {"model__backbone": {"name": "v3"}, "madds": 5e8, "classes": (0.7, score - 0.3)}
        write_run(tmp_path / "runs" / f"b_seed{seed}", [0.3, score - 0.1], seed, **changes)
    return tmp_path / "runs"
