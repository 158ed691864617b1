"""Rounding: its arithmetic beside torch's own, where it stands in a network, and that integers give the same."""

import pytest
import torch

from densevision.export import optimised
from densevision.quantize import QuantizedLayer, Quantizer, calibrate, int8, integer, quantized, quantizers
from tests.exports import SIZE, picture, small_network

NETWORKS = [
    ("mobilenet_v3_small", "lraspp"),
    ("mobilenet_v2", "raspp"),
    ("mobilenet_v1", "ssdlite"),
    ("mobilenet_v3_large", "ssdlite"),
    ("mobilenext", "lraspp"),
    ("mnasnet_a1", "classifier"),
    ("fbnetv2_f1", "classifier"),
]


def images(seed=0):
    return torch.from_numpy(picture(*SIZE, seed=seed).transpose(2, 0, 1)[None].copy())


def outputs(model, batch):
    with torch.no_grad():
        found = model(batch)
    return found if isinstance(found, dict) else {"logits": found}


def rounding(backbone, head):
    model = quantized(small_network(backbone, head)[0])
    calibrate(model, [images(seed) for seed in range(3)])
    return model


def test_values_and_gradients_are_torchs():
    torch.manual_seed(0)
    x, towards = 3 * torch.randn(4, 5, 6, 7), torch.randn(4, 5, 6, 7)
    quantizer = Quantizer()
    quantizer.seen = [x[:2].flatten()]
    quantizer.choose_range()
    scale, zero = float(quantizer.scale.detach()), int(quantizer.zero_point)
    ours, theirs = (x.clone().requires_grad_() for _ in range(2))
    found, expected = quantizer(ours), torch.fake_quantize_per_tensor_affine(theirs, scale, zero, -128, 127)
    torch.testing.assert_close(found, expected)
    (found * towards).sum().backward()
    (expected * towards).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    assert int((ours.grad == 0).sum()) > 0, "some values should be cut off"
    # LSQ, equation 3: the distance to the level inside, the end's level outside; here of the scale's logarithm
    level = torch.round(x / scale) + zero
    slope = torch.where(level < -128, -128.0 - zero, torch.where(level > 127, 127.0 - zero, level - zero - x / scale))
    wanted = (slope * towards).sum() * (x.numel() * 127) ** -0.5 * scale
    torch.testing.assert_close(quantizer.log_scale.grad, wanted, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("outlier", [0.0, 40.0])
def test_a_range_is_chosen_by_the_error_and_keeps_zero(outlier):
    torch.manual_seed(0)
    values = torch.cat([torch.randn(5000), torch.tensor([outlier])])
    quantizer = Quantizer()
    quantizer.seen = [values]
    quantizer.choose_range()
    step = float(values.max() - values.min()) / 255
    with torch.no_grad():
        error = (quantizer(values) - values).square().mean()
        assert quantizer(torch.zeros(1)) == 0
    whole = torch.fake_quantize_per_tensor_affine(values, step, round(-128 - float(values.min()) / step), -128, 127)
    assert error <= (whole - values).square().mean() * 1.01


@pytest.mark.parametrize(("backbone", "head"), NETWORKS)
def test_every_layer_reads_integers_and_no_tensor_is_rounded_twice(backbone, head):
    plain = small_network(backbone, head)[0]
    model = rounding(backbone, head)
    layers = [module for module in model.modules() if isinstance(module, QuantizedLayer)]
    convolutions = [m for m in plain.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(layers) == len(convolutions)
    levels, again = [], []

    def read(module, args):
        x = args[0] if module.input is None else module.input(args[0])
        levels.append(len(x.unique()))

    def rounded(module, args, out):
        again.append(torch.equal(args[0], out) and len(out.unique()) > 2)

    for layer in layers:
        layer.register_forward_pre_hook(read)
    for quantizer in quantizers(model):
        quantizer.register_forward_hook(rounded)
    outputs(model, images(7))
    assert max(levels) <= 256
    assert not any(again)


@pytest.mark.parametrize(("backbone", "head"), NETWORKS)
def test_integers_compute_what_was_calibrated(backbone, head):
    model = rounding(backbone, head)
    whole = integer(model)
    weights = [buffer for name, buffer in whole.named_buffers() if name.endswith(".weight")]
    assert weights
    assert all(weight.dtype == torch.int8 for weight in weights)
    assert not [name for name, parameter in whole.named_parameters() if parameter.ndim > 1]
    # each layer by itself: untrained networks make much of a tie that falls the other way
    read = {}
    for name, layer in model.named_modules():
        if isinstance(layer, QuantizedLayer):
            layer.register_forward_pre_hook(lambda layer, args, name=name: read.update({name: args[0]}))
    outputs(model, images(7))
    for name, x in read.items():
        expected, found = (outputs(net.get_submodule(name), x)["logits"] for net in (model, whole))
        step = float(model.get_submodule(name).output.scale)
        apart = (found - expected).abs()
        assert float(apart.max()) <= 1.6 * step, "one level, of which hard-swish may make a little more"
        assert float((apart > 0.1 * step).float().mean()) < 0.02


def test_normalisation_is_folded_with_its_statistics_and_still_learns():
    model = quantized(small_network("mobilenet_v3_small", "lraspp")[0]).train()
    calibrate(model, [images(0)])
    assert model.training, "calibration leaves the mode"
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model(torch.cat([images(0), images(1)])).square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.backbone.stem.norm.weight.grad.abs().sum() > 0


def test_batch_norm_folded_before_or_by_the_rounding_is_the_same():
    plain = small_network("mobilenet_v2", "raspp")[0]
    batches = [images(seed) for seed in range(2)]
    folded, whole = (outputs(int8(net, batches), images(5))["logits"] for net in (optimised(plain), plain))
    torch.testing.assert_close(folded, whole, rtol=0, atol=float(whole.abs().max()) / 50)
