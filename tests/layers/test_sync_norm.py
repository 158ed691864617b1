"""Batch normalisation over processes against torch's over the whole batch."""

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn

from densevision.layers.sync_norm import SyncBatchNorm2d, separate, synchronise
from tests.processes import FORK

pytestmark = pytest.mark.processes

SHARES = [(5, 3, 4), (1, 2, 2), (2, 6, 1)]  # pictures, height and width of each process


def batches(dtype):
    generator = torch.Generator().manual_seed(0)
    return [3 + torch.randn(n, 4, h, w, generator=generator, dtype=torch.float64).to(dtype) for n, h, w in SHARES]


def network(momentum, dtype):
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4, eps=1e-3, momentum=momentum)
    nn.init.uniform_(norm.weight)
    nn.init.uniform_(norm.bias)
    # as automatic mixed precision has it: inputs of half precision, weights and statistics not
    return nn.Sequential(norm).to(torch.float32 if dtype == torch.bfloat16 else dtype)


def share(rank, folder, momentum, dtype):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=len(SHARES))
    model = synchronise(network(momentum, dtype))
    assert type(model[0]) is SyncBatchNorm2d
    x = batches(dtype)[rank].requires_grad_()
    for _ in range(2):
        out = model(x)
    (out.sin() * (rank + 1)).sum().backward()
    gradients = torch.cat([model[0].weight.grad, model[0].bias.grad])
    dist.all_reduce(gradients)
    evaluated = separate(model).eval()(x)
    torch.save((out, x.grad, gradients, model.state_dict(), evaluated), folder / f"{rank}.pth")
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("momentum", "dtype", "tolerance"),
    [(0.1, torch.float64, 1e-12), (None, torch.float32, 1e-5), (0.1, torch.bfloat16, 2e-2)],
)
def test_equals_torch_over_the_batches_of_all_processes(tmp_path, momentum, dtype, tolerance):
    processes = [FORK.Process(target=share, args=(rank, tmp_path, momentum, dtype)) for rank in range(len(SHARES))]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * len(SHARES)

    # one batch of all values, as columns: batch normalisation does not care where they stand
    model, inputs = network(momentum, dtype), [x.requires_grad_() for x in batches(dtype)]
    columns = [x.transpose(0, 1).flatten(1) for x in inputs]
    whole = torch.cat(columns, dim=1).t()[:, :, None, None]
    for _ in range(2):
        out = model(whole)
    scale = torch.cat([torch.full((column.shape[1],), rank + 1.0) for rank, column in enumerate(columns)])
    (out.sin() * scale[:, None, None, None].to(dtype)).sum().backward()
    expected = out.detach()[:, :, 0, 0].t().split([column.shape[1] for column in columns], dim=1)
    close = {"rtol": tolerance, "atol": tolerance}
    for rank, x in enumerate(inputs):
        found, slope, gradients, state, evaluated = torch.load(tmp_path / f"{rank}.pth", weights_only=True)
        torch.testing.assert_close(found.transpose(0, 1).flatten(1), expected[rank], **close)
        torch.testing.assert_close(slope, x.grad, **close)
        own = torch.cat([model[0].weight.grad, model[0].bias.grad])
        torch.testing.assert_close(gradients, own, rtol=tolerance, atol=tolerance * 10)
        torch.testing.assert_close(state, model.state_dict(), **close)
        torch.testing.assert_close(evaluated, copy.deepcopy(model).eval()(x), **close)


def test_alone_it_is_torchs():
    model = network(0.1, torch.float32)
    alone = synchronise(copy.deepcopy(model))
    x = torch.randn(2, 4, 3, 3)
    assert torch.equal(alone(x), model(x))
    assert type(separate(alone)[0]) is nn.BatchNorm2d
    assert alone.state_dict().keys() == model.state_dict().keys()
