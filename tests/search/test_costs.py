"""The costs of a table are those that profile counts of the network."""

import pytest

from densevision.backbones import BACKBONES, architecture_to_dict
from densevision.complexity import measure
from densevision.config.schema import Config
from densevision.model_heads import HEADS
from densevision.models import build_model
from densevision.search.costs import madds_cost, params_cost
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
