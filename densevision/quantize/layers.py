"""The layers of a network that rounds: tensors to 256 levels, weights to 255 a channel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LOW, HIGH = -128, 127  # of activations; weights are symmetric, -HIGH to HIGH
_KEPT = 4096  # values of a tensor and picture by which its range is chosen
_TRIED = 43  # ranges, of .2 to 1.04 of what was seen
# what lies outside makes no difference behind the activation, so no levels are spent on it
_ALL = (-float("inf"), float("inf"))
_BOUNDS: dict[Any, tuple[float, float]] = {
    nn.ReLU: (0.0, float("inf")),
    nn.ReLU6: (0.0, 6.0),
    nn.Hardswish: (-3.0, float("inf")),
    nn.Hardsigmoid: (-3.0, 3.0),
}


class Quantizer(nn.Module):
    """Rounds a tensor of any shape to 256 levels between its ends, which it keeps.

    The step is learnt as its logarithm; ``zero_point`` is the level of 0, which is always exact. The gradient
    passes where nothing is cut off, and goes into the scale as in LSQ (Esser et al., Learned Step Size Quantization,
    2020), divided by the root of the number of values and levels.

    Args:
        bounds: least and greatest value that matter.
    """

    zero_point: Tensor

    def __init__(self, bounds: tuple[float, float] = _ALL) -> None:
        super().__init__()
        self.bounds = bounds
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.register_buffer("zero_point", torch.zeros((), dtype=torch.int32))
        self.seen: list[Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.seen is not None:
            self.seen.append(_sample(x))
            return x
        rounded: Tensor = _LearntStep.apply(x, self.scale, self.zero_point)
        return rounded

    @property
    def scale(self) -> Tensor:
        """The step; levels end where values no longer matter, so that they do what ReLU6 does."""
        return torch.minimum(self.log_scale.exp(), self.bounds[1] / (HIGH - self.zero_point))

    @torch.no_grad()
    def choose_range(self) -> None:
        """Take the range with the least squared error over what was seen."""
        assert self.seen
        values = torch.cat(self.seen).clamp(*self.bounds)
        self.seen = None
        least, greatest = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
        best = (float("inf"), 1.0, 0)
        for share in torch.linspace(0.2, 1.04, _TRIED).tolist():
            scale = max(share * (greatest - least) / (HIGH - LOW), 1e-8)
            zero = round(min(max(LOW - share * least / scale, LOW), HIGH))
            scale = min(scale, self.bounds[1] / max(HIGH - zero, 1))
            error = float((_round(values, scale, zero) - values).square().mean())
            best = min(best, (error, scale, zero))
        self.log_scale.fill_(best[1]).log_()
        self.zero_point.fill_(best[2])


def _round(x: Tensor, scale: Tensor | float, zero_point: Tensor | int = 0) -> Tensor:
    return (x / scale).round_().add_(zero_point).clamp_(LOW, HIGH).sub_(zero_point).mul_(scale)


class _LearntStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
        out = _round(x, scale, zero_point)
        ctx.save_for_backward(x, out, scale, zero_point)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        x, out, scale, zero_point = ctx.saved_tensors
        low, high = (LOW - zero_point - 0.5) * scale, (HIGH - zero_point + 0.5) * scale
        inside = (x >= low) & (x <= high)
        to_x = gradients[0] * inside
        to_scale = ((gradients[0] * out).sum() - (to_x * x).sum()) / scale
        return to_x, to_scale * (x.numel() * HIGH) ** -0.5, None


def _sample(x: Tensor) -> Tensor:
    """Both ends of a tensor and some of its values, always the same ones."""
    values = x.detach().flatten().float()
    ends = torch.stack(values.aminmax())
    if len(values) > _KEPT:
        chosen = torch.randint(len(values), (_KEPT,), generator=torch.Generator().manual_seed(0))
        values = values[chosen.to(values.device)]
    return torch.cat([ends, values])


class QuantizedLayer(nn.Module):
    """A convolution or linear layer whose input, weights and output are rounded; the shapes stay.

    Batch normalisation is folded into the weights, with the statistics that it came with: they no longer move, while
    its gamma and beta are still learnt. ReLU and ReLU6 come before the output is rounded, which then is all that they
    do; other activations come after, in float.
    """

    input: Quantizer | None

    def __init__(self, conv: nn.Conv2d | nn.Linear, norm: nn.Module | None, act: nn.Module | None) -> None:
        super().__init__()
        self.conv = conv
        self.norm = norm if isinstance(norm, nn.BatchNorm2d) else None
        self.act = None if isinstance(act, nn.Identity) else act
        if isinstance(self.act, nn.Hardswish):
            self.act.inplace = False  # the tensor it overwrote would pass for a rounded one
        self.input = Quantizer()
        self.output = Quantizer(_BOUNDS.get(type(act), _ALL))
        self.calibrating = False

    @property
    def clips(self) -> bool:
        """Whether the activation is no more than what the output's range does."""
        return isinstance(self.act, nn.ReLU | nn.ReLU6)

    def weight_and_bias(self) -> tuple[Tensor, Tensor | None]:
        """With normalisation folded in."""
        if self.norm is None:
            return self.conv.weight, self.conv.bias
        norm: Any = self.norm
        factor = norm.weight * (norm.running_var + norm.eps).rsqrt()
        return self.conv.weight * factor.view(-1, 1, 1, 1), norm.bias - norm.running_mean * factor

    def forward(self, x: Tensor) -> Tensor:
        if self.input is not None:
            x = self.input(x)
        weight, bias = self.weight_and_bias()
        if not self.calibrating:
            weight = weight + (_round(weight.detach(), weight_scale(weight)) - weight.detach())
        out = apply(places_of(self.conv), x, weight, bias)
        if self.act is None:
            return self.output(out)
        return self.output(self.act(out)) if self.clips else self.act(self.output(out))


def weight_scale(weight: Tensor) -> Tensor:
    """The step of each output channel, (O, 1, ...)."""
    return weight.detach().abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True).clamp(min=1e-8) / HIGH


def places_of(conv: nn.Conv2d | nn.Linear) -> tuple[Any, ...] | None:
    """Stride, padding, dilation and groups, None of a linear layer."""
    return None if isinstance(conv, nn.Linear) else (conv.stride, conv.padding, conv.dilation, conv.groups)


def apply(places: tuple[Any, ...] | None, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(x, weight, bias) if places is None else F.conv2d(x, weight, bias, *places)


class QuantizedInput(nn.Module):
    """A block whose input is rounded, so that its skip too begins with what its first convolution reads."""

    input: Quantizer | None

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.input = Quantizer()
        self.block = block

    def forward(self, x: Tensor, taps: dict[str, Tensor] | None = None) -> Tensor:
        """As the block's."""
        return self.block(x if self.input is None else self.input(x), taps)
