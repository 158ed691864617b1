"""Class maps from logits: the bits of interpolate + argmax, whichever way is taken."""

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from densevision.segmentation.postprocess import class_map, upsample_logits

SIZES = [(1, 1), (7, 9), (64, 64), (64, 65), (16, 40), (97, 131), (200, 16)]


def reference(logits, size, align_corners):
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=align_corners).argmax(1)


def near_ties(*shape):
    """Logits whose best classes differ in the last bits only, where a different rounding would show."""
    generator = torch.Generator().manual_seed(sum(shape))
    coarse = torch.randn(shape[0], 1, *shape[2:], generator=generator)
    return coarse + 1e-6 * torch.randn(shape, generator=generator)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    "shape", [(1, 19, 13, 17), (3, 5, 16, 40), (1, 3, 16, 19), (2, 2, 1, 1), (2, 1, 8, 9), (1, 255, 5, 6)], ids=str
)
def test_class_map_equals_interpolate_and_argmax(shape, size, align_corners):
    logits = near_ties(*shape)
    for layout in (torch.contiguous_format, torch.channels_last):
        values = logits.to(memory_format=layout)
        result = class_map(values, size, align_corners)
        assert result.dtype == torch.uint8
        assert torch.equal(result.long(), reference(values, size, align_corners)), layout


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("size", [*SIZES, (5, 300)], ids=str)
@pytest.mark.parametrize("shape", [(2, 19, 13, 17), (1, 3, 1, 1), (1, 5, 100, 1), (2, 1, 8, 9)], ids=str)
def test_the_inexact_class_map_differs_only_where_classes_nearly_tie(shape, size, align_corners):
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    result = class_map(logits, size, align_corners, exact=False)
    assert result.dtype == torch.uint8
    assert (result == reference(logits, size, align_corners)).double().mean() >= 0.99999
    ties = class_map(near_ties(*shape), size, align_corners, exact=False).long()[:, None]
    exact = F.interpolate(near_ties(*shape), size=size, mode="bilinear", align_corners=align_corners)
    torch.testing.assert_close(exact.gather(1, ties)[:, 0], exact.amax(1), rtol=0, atol=3e-6)


def test_class_map_of_a_slice_equals_too():
    logits = near_ties(2, 8, 24, 30)[:, 1:6, 3:, :-2]
    assert torch.equal(class_map(logits, (99, 101), True).long(), reference(logits, (99, 101), True))


def test_ties_go_to_the_first_class():
    logits = torch.zeros(1, 4, 8, 8)
    logits[:, 2:] = 1.0
    assert (class_map(logits, (100, 100), True) == 2).all()
    assert (class_map(logits, (10, 10), True) == 2).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_logits_are_interpolated_in_float32(dtype):
    logits = near_ties(1, 3, 8, 8).to(dtype)
    assert upsample_logits(logits, (80, 90), True).dtype == torch.float32
    assert torch.equal(class_map(logits, (80, 90), True).long(), reference(logits.float(), (80, 90), True))


def test_upsampled_logits_keep_float64_and_their_gradient():
    logits = near_ties(1, 3, 4, 4).double().requires_grad_()
    result = upsample_logits(logits, (8, 8), False)
    assert result.dtype == torch.float64
    result.sum().backward()
    assert logits.grad is not None


def test_logits_that_need_a_gradient_give_a_class_map():
    assert class_map(near_ties(1, 3, 8, 8).requires_grad_(), (80, 90), True).shape == (1, 80, 90)


def test_too_many_classes_for_a_byte_are_refused():
    with pytest.raises(ValueError, match="256 classes"):
        class_map(torch.zeros(1, 256, 2, 2), (4, 4), True)


def test_class_map_runs_on_a_fake_gpu():
    with FakeTensorMode():
        result = class_map(torch.zeros(2, 19, 16, 32, device="cuda"), (128, 256), True)
    assert result.shape == (2, 128, 256)
    assert result.device.type == "cuda"


def test_class_map_is_exported_as_one_interpolation_and_equals():
    class Tail(torch.nn.Module):
        def forward(self, logits):
            return class_map(logits, (96, 130), True)

    logits = near_ties(1, 19, 12, 16)
    program = torch.export.export(Tail(), (logits,))
    calls = [node for node in program.graph.nodes if "upsample" in str(node.target)]
    assert len(calls) == 1
    assert torch.equal(program.module()(logits), class_map(logits, (96, 130), True))
