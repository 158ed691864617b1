"""The supernet at one choice is the sliced network, its cost the counted one, and what is chosen can be learnt."""

import pytest
import torch

from densevision.backbones import BACKBONES, architecture_from_dict, architecture_to_dict
from densevision.complexity import measure
from densevision.config.schema import Config
from densevision.errors import UserError
from densevision.model_heads import HEADS
from densevision.models import build_model
from densevision.search.mask_space import MaskSpace, Operator
from densevision.search.slicing import slice_weights
from densevision.search.spatial import operate_then_intersperse
from densevision.search.supernet import MixedBlock, Supernet

NAMES = sorted(set(BACKBONES) - {"fbnetv2_f2", "fbnetv2_f3", "fbnetv2_l2"})
SIZE = (64, 64)
FBNET = (Operator(3, False, "relu"), Operator(5, True, "hswish"))


def builder(head):
    def build(architecture):
        config = Config()
        config.model.backbone.arch, config.model.head.name = architecture_to_dict(architecture), head
        config.model.head.channels = 8
        return build_model(config.model, 5).double().eval()

    return build


def tensors(outputs):
    return list(outputs.values()) if isinstance(outputs, dict) else [outputs]


def random_norms(model):
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_()


def double(gates):
    return {name: gate.double() for name, gate in gates.items()}


# every backbone once, every head several times
@pytest.mark.parametrize(("name", "head"), [(name, sorted(HEADS)[i % 4]) for i, name in enumerate(NAMES)])
def test_one_choice_is_the_sliced_network_and_costs_what_it_costs(name, head):
    torch.manual_seed(0)
    build, seed = builder(head), BACKBONES[name](width_mult=0.35)
    space = MaskSpace(seed, widths=(0.4, 0.7, 1.0))
    net = Supernet(build, space, SIZE)
    random_norms(net.model)
    images = torch.rand(1, 3, *SIZE).double() * 255
    for number in range(1, 2):
        choice = space.random(torch.Generator().manual_seed(number))
        net.set_gates(double(net.one_hot(choice)))
        child = build(space.derive(choice))
        # the model's own masks are no weights: what is sliced is the plain network
        child.load_state_dict(slice_weights(net.model, space.derive(choice), strongest=False))
        with torch.no_grad():
            for ours, theirs in zip(tensors(net.model(images)), tensors(child(images)), strict=True):
                assert (ours - theirs).abs().max() == 0.0
        assert net.cost().item() == pytest.approx(measure(child, SIZE).conv_madds / 1e6, rel=1e-12)


def test_a_mask_before_normalisation_would_not_do():
    """The shift of a silenced channel speaks; why masks stand behind the activation."""
    net = Supernet(builder("raspp"), MaskSpace(BACKBONES["mobilenet_v2"](width_mult=0.5)), SIZE)
    random_norms(net.model)
    images = torch.rand(1, 3, *SIZE).double() * 255
    net.set_gates(double(net.one_hot(dict.fromkeys(net.space.decisions, 0))))
    layer, width = net.model.backbone.blocks[1].project, net.space.widths["trunk 2-3"][0]
    with torch.no_grad():
        right = net.model(images)
        layer._forward_hooks.clear()
        layer.conv.register_forward_hook(lambda m, a, out: out * (torch.arange(out.shape[1]) < width)[:, None, None])
        assert (net.model(images) - right).abs().max() > 0.0


def test_kinds_of_blocks_and_no_block():
    torch.manual_seed(0)
    seed = BACKBONES["mobilenet_v3_small"](width_mult=0.5)
    space = MaskSpace(seed, widths=(0.5, 1.0), operators=FBNET, skip=True)
    build = builder("classifier")
    net = Supernet(build, space, SIZE)
    random_norms(net.model)
    images = torch.rand(1, 3, *SIZE).double() * 255
    for number in range(3):
        choice = space.random(torch.Generator().manual_seed(number))
        derived = space.derive(choice)
        assert architecture_from_dict(architecture_to_dict(derived), "") == derived
        net.set_gates(double(net.one_hot(choice)))
        assert net.cost().item() == pytest.approx(measure(build(derived), SIZE).conv_madds / 1e6, rel=1e-12)
        outputs = net.model.double()(images)
        for i, block in enumerate(net.model.backbone.blocks):
            if isinstance(block, MixedBlock):  # every other kind is silent
                for j, option in enumerate(block.options):
                    if j != choice[f"block {i}"]:
                        for parameter in option.parameters():
                            parameter.data.add_(1.0)
        torch.testing.assert_close(net.model(images), outputs, rtol=0, atol=0)
    skipped = [i for i, block in enumerate(space.widest.blocks) if None in space.kinds(block)]
    assert skipped
    last = dict.fromkeys(space.decisions, 0) | {f"block {i}": len(FBNET) for i in skipped}
    assert len(space.derive(last).blocks) == len(seed.blocks) - len(skipped)


def test_a_resolution_is_operated_on_and_then_spread():
    x = torch.randn(2, 4, 33, 48).double()
    conv = torch.nn.Conv2d(4, 6, 3, stride=2, padding=1).double()
    small = conv(x[..., ::2, ::2])
    out = operate_then_intersperse(x, conv, (1, 2), torch.tensor([0.0, 1.0]).double())
    assert out.shape == conv(x).shape
    assert torch.equal(out[..., ::2, ::2], small)
    assert (out != 0).sum() == (small != 0).sum()  # zeros between
    assert torch.equal(operate_then_intersperse(x, conv, (1, 2), torch.tensor([1.0, 0.0]).double()), conv(x))
    spread_first = torch.zeros_like(x)
    spread_first[..., ::2, ::2] = x[..., ::2, ::2]
    assert not torch.allclose(conv(spread_first)[..., ::2, ::2], small)  # the other order is another operator


def test_a_searched_resolution_is_the_network_on_the_smaller_picture():
    torch.manual_seed(0)
    build, seed = builder("classifier"), BACKBONES["fbnetv2_f0"](width_mult=0.5)
    space = MaskSpace(seed, widths=(0.5, 1.0), strides=(1, 2))
    net = Supernet(build, space, SIZE)
    random_norms(net.model)
    choice = space.random(torch.Generator().manual_seed(1)) | {"stride": 1}
    net.set_gates(double(net.one_hot(choice)))
    plain = Supernet(build, MaskSpace(seed, widths=(0.5, 1.0)), (32, 32))
    state = {key.replace(".layer.", ".").replace("head.head.", "head."): v for key, v in net.model.state_dict().items()}
    plain.model.load_state_dict(state)
    plain.set_gates({name: gate for name, gate in net.gates.items() if name != "stride"})
    images = torch.rand(1, 3, *SIZE).double() * 255
    with torch.no_grad():
        assert torch.equal(net.model(images), plain.model(images[..., ::2, ::2]))
    assert net.cost().item() == pytest.approx(plain.cost().item(), rel=1e-12)
    with pytest.raises(UserError, match=r"data\.image_size"):
        Supernet(builder("lraspp"), space, SIZE)


def test_gradients_reach_what_is_chosen():
    torch.manual_seed(0)
    space = MaskSpace(BACKBONES["mobilenet_v3_small"](width_mult=0.5), widths=(0.5, 1.0), operators=FBNET, skip=True)
    net = Supernet(builder("lraspp"), space, SIZE)
    net.set_gates(double(net.sample(temperature=2.0)))
    outputs = net.model.double()(torch.rand(1, 3, *SIZE).double() * 255)
    (outputs.square().mean() + net.cost().log()).backward()
    assert all(theta.grad is not None and theta.grad.isfinite().all() for theta in net.theta.values())
    assert any(theta.grad.abs().sum() > 0 for theta in net.theta.values())
