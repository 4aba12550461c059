"""Normalisations put into the convolutions before them: the same function with less to do."""

from torch import nn


def fold(module: nn.Module, pairs: list[tuple[str, str]]) -> None:
    """Replace each pair (convolution, normalisation) of a module, which is in eval mode, by one convolution with a bias."""
    for name, after in pairs:
        convolution = getattr(module, name)
        normal = getattr(module, after)
        gain = normal.weight.double() / (normal.running_var.double() + normal.eps).sqrt()
        weight = convolution.weight.double() * gain[:, None, None, None]
        bias = normal.bias.double() - gain * normal.running_mean.double()
        convolution.weight = nn.Parameter(weight.to(convolution.weight.dtype), requires_grad=False)
        convolution.bias = nn.Parameter(bias.to(convolution.weight.dtype), requires_grad=False)
        setattr(module, after, nn.Identity())
