"""Layers with spectral normalisation (Miyato et al., ICLR 2018): their weights are divided by the greatest singular value.

Its left vector is followed once an iteration, and not in the forward, which changes nothing: so a batch may be cut into
any ranks and parts, and looking at a network leaves it as it is.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FIRST = 15  # turns of the power iteration before a training


class Spectral(nn.Module):
    """A layer whose `weight` [out, …] is seen as a matrix of `out` rows."""

    weight: Tensor
    u: Tensor  # [out] left singular vector

    def begin(self) -> None:
        """Find the vector, once there are weights."""
        start = torch.empty(len(self.weight)).normal_()
        self.register_buffer("u", F.normalize(start, dim=0))
        for _ in range(FIRST):
            self.follow()

    def normalised(self) -> Tensor:
        """W / σ, σ = ‖Wᵀu‖; in float32 under autocast, as these products are sums."""
        v = (self.weight.flatten(1) * self.u[:, None]).sum(0)
        return self.weight / torch.linalg.vector_norm(v)

    @torch.no_grad()
    def follow(self) -> None:
        """One turn of the power iteration."""
        rows = self.weight.flatten(1)
        v = F.normalize((rows * self.u[:, None]).sum(0), dim=0)
        self.u.copy_(F.normalize((rows * v).sum(1), dim=0))


class Conv2d(nn.Conv2d, Spectral):
    """A square convolution that keeps the size, weights of Glorot & Bengio (2010): [N, into, h, w] -> [N, out, h, w]."""

    def __init__(self, into: int, out: int, kernel: int) -> None:
        super().__init__(into, out, kernel, padding=kernel // 2)
        nn.init.xavier_uniform_(self.weight)
        self.begin()

    def forward(self, x: Tensor) -> Tensor:
        """[N, out, h, w]."""
        return self._conv_forward(x, self.normalised(), self.bias)


class Linear(nn.Linear, Spectral):
    """[N, into] -> [N, out], weights of Glorot & Bengio (2010)."""

    def __init__(self, into: int, out: int, bias: bool = True) -> None:
        super().__init__(into, out, bias)
        nn.init.xavier_uniform_(self.weight)
        self.begin()

    def forward(self, x: Tensor) -> Tensor:
        """[N, out]."""
        return F.linear(x, self.normalised(), self.bias)
