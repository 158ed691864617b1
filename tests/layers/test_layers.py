import pytest
import torch

from densevision.layers import (
    ConvNormAct,
    InvertedResidual,
    NormSpec,
    Preprocess,
    SqueezeExcite,
    make_divisible,
    truncated_normal_,
)

NORM = NormSpec(momentum=0.1, eps=1e-3)


@pytest.mark.parametrize(
    ("value", "rounded"),
    [(3, 8), (11.2, 16), (12, 16), (18, 24), (28, 32), (33.6, 32), (56, 56), (120 / 4, 32), (672 / 4, 168)],
)
def test_make_divisible(value, rounded):
    assert make_divisible(value) == rounded


def test_truncated_normal():
    torch.manual_seed(0)
    weight = truncated_normal_(torch.empty(200_000), std=0.5)
    expected = torch.nn.init.trunc_normal_(torch.empty(200_000), std=0.5, a=-1, b=1)
    assert weight.abs().max() <= 1
    for share in (0.02, 0.2, 0.5, 0.9):
        assert weight.quantile(share).item() == pytest.approx(expected.quantile(share).item(), abs=0.01)


@pytest.mark.parametrize("mode", ["half", "imagenet"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_preprocess_takes_pixels(mode, dtype):
    images = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    mean, std = {
        "half": (torch.full((3,), 0.5), torch.full((3,), 0.5)),
        "imagenet": (torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])),
    }[mode]
    expected = (images / 255 - mean[:, None, None]) / std[:, None, None]
    out = Preprocess(mode)(images.to(dtype))
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_preprocess_follows_the_model(dtype):
    layer = Preprocess("half").to(dtype)
    assert layer(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)).dtype == dtype
    assert not layer.state_dict()


def test_preprocess_under_autocast():
    images = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8)
    network = torch.nn.Sequential(Preprocess("half"), torch.nn.Conv2d(3, 4, 1))
    with torch.autocast("cpu", torch.bfloat16):
        assert network[0](images).dtype == torch.float32
        assert network(images).dtype == torch.bfloat16


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("dilation", [1, 2, 4])
@pytest.mark.parametrize("stride", [1, 2])
def test_padding_gives_ceil_of_size_over_stride(kernel, dilation, stride):
    layer = ConvNormAct(2, 3, kernel, stride, dilation, act="relu", norm=NORM).eval()
    assert layer(torch.zeros(1, 2, 33, 40)).shape == (1, 3, -(-33 // stride), 40 // stride)


def test_squeeze_excite_by_hand():
    layer = SqueezeExcite(6, 4)
    x = torch.randn(2, 6, 5, 7)
    hidden = torch.relu(x.mean((2, 3)) @ layer.reduce.weight[:, :, 0, 0].T + layer.reduce.bias)
    gate = torch.clamp(hidden @ layer.expand.weight[:, :, 0, 0].T + layer.expand.bias + 3, 0, 6) / 6
    torch.testing.assert_close(layer(x), x * gate[:, :, None, None])


def block(**changes):
    arguments = {
        "kernel": 3, "stride": 1, "dilation": 1, "squeeze": 8, "act": "hswish", "expand": True, "residual": True
    }  # fmt: skip
    return InvertedResidual(16, 24, 16, norm=NORM, **(arguments | changes)).eval()


def test_block_taps_are_its_intermediate_maps():
    layer, x, taps = block(), torch.randn(2, 16, 9, 9), {}
    out = layer(x, taps)
    assert list(taps) == ["expansion", "depthwise", "output"]
    torch.testing.assert_close(taps["depthwise"], layer.depthwise(layer.expand(x)))
    torch.testing.assert_close(out, x + layer.project(layer.se(taps["depthwise"])))
    torch.testing.assert_close(out, layer(x))


@pytest.mark.parametrize(("until", "parts"), [("expansion", {"expand"}), ("depthwise", {"expand", "depthwise"})])
def test_block_builds_nothing_behind_its_last_tap(until, parts):
    layer, taps = block(until=until), {}
    out = layer(torch.randn(2, 16, 9, 9), taps)
    assert {name.split(".")[0] for name, _ in layer.named_parameters()} == parts
    assert list(taps)[-1] == until
    assert out is taps[until]
