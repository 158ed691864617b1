"""The costs of a table are those that profile counts of the network."""

import pytest

from densevision.backbones import BACKBONES, architecture_to_dict
from densevision.complexity import measure
from densevision.config.schema import Config
from densevision.latency_table import LatencyTable, head_key, layer_key, write_table
from densevision.model_heads import HEADS
from densevision.models import build_model
from densevision.search.costs import backbone_layers, latency_cost, madds_cost, map_shapes, params_cost
from densevision.search.widths import shrunk, width_groups

NAMES = sorted(set(BACKBONES) - {"fbnetv2_f2", "fbnetv2_f3", "fbnetv2_l2"})
SIZE = (97, 130)


# every backbone once, every head several times
@pytest.mark.parametrize(("name", "head"), [(name, sorted(HEADS)[i % 4]) for i, name in enumerate(NAMES)])
def test_a_cost_is_what_is_counted(name, head):
    seed = BACKBONES[name](width_mult=0.5, output_stride=16)

    def build(architecture):
        config = Config()
        config.model.backbone.arch, config.model.head.name = architecture_to_dict(architecture), head
        return build_model(config.model, 7)

    costs = madds_cost(build, SIZE), params_cost(build, SIZE)
    groups = width_groups(seed)
    # the second head's part is the first's where no tapped width changed
    for network in (seed, shrunk(shrunk(seed, groups[3]), groups[-2])):
        counted = measure(build(network), SIZE)
        assert costs[0](network) == pytest.approx(counted.conv_madds / 1e6, rel=1e-12)
        assert costs[1](network) == pytest.approx(counted.params / 1e6, rel=1e-12)


@pytest.mark.parametrize("head", sorted(HEADS))
def test_a_latency_is_the_sum_of_the_parts_that_a_table_has(head, tmp_path):
    """From a table of another machine, so that nothing is measured: every part has another power of two."""
    seed = BACKBONES["mobilenet_v3_small"](width_mult=0.35, output_stride=16)

    def build(architecture):
        config = Config()
        config.model.backbone.arch, config.model.head.name = architecture_to_dict(architecture), head
        return build_model(config.model, 7)

    # the last group of the trunk is a map that every head reads
    narrower = shrunk(seed, [group for group in width_groups(seed) if group.kind == "trunk"][-1])
    keys, expected = {}, []
    for network in (seed, narrower):
        names = list(build(network).backbone.feature_info)
        parts = [layer_key(*layer) for layer in backbone_layers(network, names, SIZE)]
        parts += [head_key(build(network).head, map_shapes(network, names, SIZE)), "preprocess mode=half at 97x130"]
        for part in parts:
            keys.setdefault(part, 2.0 ** len(keys))
        expected.append(sum(keys[part] for part in parts))
    write_table(tmp_path / "phone.json", {"processor": "phone"}, keys)
    table = LatencyTable(tmp_path / "phone.json")
    cost = latency_cost(build, SIZE, table)
    assert [cost(seed), cost(narrower)] == expected
    assert table.used == keys
