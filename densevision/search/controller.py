"""MnasNet's controller: a recurrent network that writes down a choice, trained by policy gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from densevision.search.space import Choice

_CLIP = 0.2  # of the ratio of probabilities (Schulman et al., 2017)


class Policy(nn.Module):
    """An LSTM that chooses decision after decision, each knowing those before it.

    Args:
        sizes: how many values each decision has.
        hidden: width of the LSTM.
    """

    def __init__(self, sizes: Sequence[int], hidden: int) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.start = nn.Parameter(torch.zeros(hidden))
        self.cell = nn.LSTMCell(hidden, hidden)
        self.embeddings = nn.ModuleList(nn.Embedding(size, hidden) for size in sizes)
        self.heads = nn.ModuleList(nn.Linear(hidden, size) for size in sizes)
        for head in self.heads:  # every choice is as likely as any other at first
            nn.init.zeros_(head.weight)  # type: ignore[arg-type]
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]

    def forward(
        self, choices: Tensor | None, count: int = 0, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Follow given choices, or draw ``count`` new ones.

        Args:
            choices: (N, decisions) int64, or None to draw.

        Returns:
            choices (N, decisions); the log probability of each decision, (N, decisions); the entropy of each (N,
            decisions), in nats.
        """
        count = count if choices is None else len(choices)
        step, state = self.start.expand(count, -1), None
        taken, log_probabilities, entropies = [], [], []
        for place, (embedding, head) in enumerate(zip(self.embeddings, self.heads, strict=True)):
            state = self.cell(step, state)
            logs = head(state[0]).log_softmax(1)
            if choices is None:
                value = torch.multinomial(logs.exp(), 1, generator=generator).squeeze(1)
            else:
                value = choices[:, place]
            taken.append(value)
            log_probabilities.append(logs.gather(1, value[:, None]).squeeze(1))
            entropies.append(-(logs.exp() * logs).sum(1))
            step = embedding(value)
        return torch.stack(taken, 1), torch.stack(log_probabilities, 1), torch.stack(entropies, 1)


class Controller:
    """Draws choices from a :class:`Policy` and makes the rewarded ones likelier.

    Proximal policy optimisation with a moving average of the rewards as baseline and a bonus for entropy; a
    :class:`densevision.search.samplers.Sampler`. Source: MnasNet paper, 4; Schulman et al., Proximal Policy
    Optimization (2017).

    Args:
        sizes: how many values each decision has.
        seed: of the policy's weights and of the draws.
        lr: of Adam. epochs: passes over a batch of choices. entropy: weight of the bonus.
        baseline: of the moving average, the share that stays.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        seed: int,
        lr: float = 5e-3,
        epochs: int = 4,
        entropy: float = 1e-3,
        baseline: float = 0.9,
        hidden: int = 32,
    ) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.policy = Policy(sizes, hidden)
        self.generator = torch.Generator().manual_seed(seed)
        self.optimizer = torch.optim.Adam(self.policy.parameters(), lr=lr)
        self.epochs, self.entropy, self.decay = epochs, entropy, baseline
        self.mean: float | None = None
        self.square = 0.0

    @torch.no_grad()
    def ask(self, count: int) -> list[Choice]:
        choices, _, _ = self.policy(None, count, self.generator)
        return [tuple(row) for row in choices.tolist()]

    def tell(self, choices: Sequence[Choice], rewards: Sequence[float]) -> None:
        drawn, values = torch.tensor(choices), torch.tensor(rewards)
        advantage = self._advantage(values)
        with torch.no_grad():
            _, before, _ = self.policy(drawn)
        for _ in range(self.epochs):
            _, now, entropies = self.policy(drawn)
            ratio = (now - before).exp()
            clipped = ratio.clamp(1 - _CLIP, 1 + _CLIP)
            gain = torch.minimum(ratio * advantage[:, None], clipped * advantage[:, None]).sum(1).mean()
            loss = -gain - self.entropy * entropies.sum(1).mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()

    def _advantage(self, rewards: Tensor) -> Tensor:
        """Rewards over their moving average, in moving standard deviations."""
        mean, square = float(rewards.mean()), float(rewards.square().mean())
        keep = 0.0 if self.mean is None else self.decay
        self.mean = keep * (self.mean or 0.0) + (1 - keep) * mean
        self.square = keep * self.square + (1 - keep) * square
        deviation = max(self.square - self.mean**2, 0.0) ** 0.5
        return (rewards - self.mean) / (deviation + 1e-6)
