"""The table of latencies: what its keys tell apart, when it measures, and what is measured."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from densevision.backbones import BACKBONES, BlockSpec, ConvSpec, PointwiseSpec
from densevision.config.schema import Config
from densevision.errors import UserError
from densevision.export import optimised
from densevision.latency import module_run, thread_clock, time_calls
from densevision.latency_table import LatencyTable, default_file, layer_key, read_table, this_machine, write_table
from densevision.layers import NormSpec
from densevision.models import build_model

BLOCK = BlockSpec(16, 48, 24, 3, 2, 1, squeeze=16, act="relu", expand=True, residual=False, stage=3)
PHONE = {"processor": "phone"}
OTHERS = {
    "in_channels": 8, "expansion": 40, "out_channels": 16, "kernel": 5, "stride": 1, "dilation": 2, "squeeze": 8,
    "act": "hswish", "gate": "sigmoid", "squeeze_act": "hswish", "project_act": "relu",
}  # fmt: skip


@pytest.mark.parametrize("field", OTHERS)
def test_a_key_says_all_that_a_block_computes(field):
    assert layer_key(replace(BLOCK, **{field: OTHERS[field]}), (8, 8)) != layer_key(BLOCK, (8, 8))


def test_a_key_says_the_size_and_the_operator_and_not_the_place():
    assert layer_key(BLOCK, (8, 16)) != layer_key(BLOCK, (16, 8))
    assert layer_key(replace(BLOCK, stage=4), (8, 8)) == layer_key(BLOCK, (8, 8))
    conv, pointwise = ConvSpec(8, 8, 1, 1, "relu"), PointwiseSpec(8, 8, "relu", stage=2)
    assert layer_key(conv, (8, 8)).startswith("conv in_channels=8 ")
    assert layer_key(pointwise, (8, 8)).startswith("pointwise in_channels=8 ")


def test_a_part_is_measured_once_and_kept(tmp_path, monkeypatch):
    file = tmp_path / "folder" / "table.json"
    found = LatencyTable(file).layer(BLOCK, (8, 8))
    assert 0 < found < 100
    machine, kept = read_table(file)
    assert machine == this_machine()
    assert kept == {layer_key(BLOCK, (8, 8)): found}
    monkeypatch.setattr("densevision.latency_table.measure_part", None)  # would be called
    again = LatencyTable(file)
    assert again.layer(BLOCK, (8, 8)) == found
    assert again.used == kept


def test_what_others_measure_meanwhile_is_kept(tmp_path):
    table = LatencyTable(tmp_path / "table.json")
    write_table(table.file, this_machine(), {"other": 1.0})
    table.layer(BLOCK, (8, 8))
    assert set(read_table(table.file)[1]) == {"other", layer_key(BLOCK, (8, 8))}


def test_another_machines_table_is_only_read(tmp_path):
    file = tmp_path / "phone.json"
    write_table(file, PHONE, {layer_key(BLOCK, (8, 8)): 7.5})
    table, before = LatencyTable(file), file.read_bytes()
    assert table.layer(BLOCK, (8, 8)) == 7.5
    with pytest.raises(UserError, match=r"phone\.json has no 'inverted_residual .* at 9x9' .*\(phone\); measure"):
        table.layer(BLOCK, (9, 9))
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "entry"),
    [
        ("", ""),
        ("[]", "'machine'"),
        ("{}", "'machine'"),
        ('{"machine": ["phone"], "milliseconds": {}}', "'machine'"),
        ('{"machine": {}, "milliseconds": [1]}', "'milliseconds'"),
        ('{"machine": {"threads": 1}, "milliseconds": {}}', "'threads'"),
        *[(f'{{"machine": {{}}, "milliseconds": {{"a part": {value}}}}}', "'a part'")
          for value in ('"1"', "-0.5", "Infinity", "NaN", "true", "null")],
    ],
)  # fmt: skip
def test_a_file_that_is_no_table_is_told(content, entry, tmp_path):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(UserError, match=rf"x\.json.*{entry}"):
        LatencyTable(tmp_path / "x.json")


def test_the_machines_own_table_is_in_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_file().parent == tmp_path / "densevision"
    assert LatencyTable().file == default_file()
    before = default_file()
    monkeypatch.setattr("densevision.latency_table._processor", lambda: "another")
    assert default_file() != before
    assert json.dumps(this_machine())


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "mobilenext", "fbnetv2_f0"])
def test_what_is_measured_computes_what_the_block_computes(name, tmp_path):
    torch.manual_seed(0)
    architecture = BACKBONES[name](width_mult=0.25)
    kinds = {(type(block), getattr(block, "expand", None)): block for block in architecture.blocks}
    for number, block in enumerate(kinds.values()):
        module, maps = block.build(NormSpec(0.1, 1e-3), until="output").eval(), torch.randn(1, block.in_channels, 9, 12)
        (found,) = module_run(optimised(module), maps, tmp_path / f"{number}.onnx")()
        np.testing.assert_allclose(found, module(maps).detach().numpy(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("head", ["lraspp", "raspp", "ssdlite", "classifier"])
def test_heads_are_measured_as_the_model_has_them(head, tmp_path):
    config = Config()
    config.model.backbone.name, config.model.backbone.width_mult, config.model.head.name = "mobilenet_v2", 0.25, head
    model = build_model(config.model, 3).eval()
    maps = {name: torch.randn(1, info.channels, 128 // info.stride, 96 // info.stride)
            for name, info in model.backbone.feature_info.items()}  # fmt: skip
    found = module_run(optimised(model).head, list(maps.values()), tmp_path / "head.onnx")()
    expected = model.head(*maps.values())
    expected = list(expected.values()) if isinstance(expected, dict) else [expected]
    for value, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(value, wanted.detach().numpy(), rtol=0, atol=1e-4)
    table = LatencyTable(tmp_path / "table.json")
    shapes = [tuple(value.shape[1:]) for value in maps.values()]
    assert table.head(model, shapes) > 0
    wider = [(channels, height, 2 * width) for channels, height, width in shapes]
    assert table.head(model, wider) > 0
    assert len(table.known) == 2


def test_waiting_does_not_count_on_the_threads_clock():
    taken = time_calls({"x": lambda: time.sleep(0.005)}, calls=5, passes=1, clock=thread_clock())["x"]
    assert taken.ms < 3
