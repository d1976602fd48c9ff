"""Batch normalisation over the batches of all workers."""

from collections.abc import Iterable

import torch
import torch.distributed
import torch.distributed.nn.functional
from torch import Tensor, nn


class SyncBatchNorm(nn.BatchNorm2d):
    """Batch normalisation with the statistics of all workers' batches together, on any device.

    For (batch, channels) and for any dimensions after them: heads, images and waveforms.

    `torch.nn.SyncBatchNorm` refuses CPU tensors. Here the sums travel through an all-reduce that carries gradients, so
    the workers compute exactly what one worker would with the whole batch. All workers' batches must be of one size.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        return None

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        x = input.float()
        dims = [d for d in range(x.dim()) if d != 1]
        shape = [1, -1] + [1] * (x.dim() - 2)
        workers = torch.distributed.get_world_size()
        count = x.numel() // x.shape[1] * workers
        # Squares around the running mean, which all workers share: without a shift, E[x²] - E[x]² cancels.
        assert self.running_mean is not None
        assert self.running_var is not None
        shift = self.running_mean.clone().view(shape)
        centred = x - shift
        sums = torch.stack([centred.sum(dims), centred.square().sum(dims)])
        mean, square = (torch.distributed.nn.functional.all_reduce(sums) / count).unbind()
        var = (square - mean.square()).clamp(min=0.0)
        with torch.no_grad():
            assert self.num_batches_tracked is not None
            self.num_batches_tracked += 1
            # None: the mean over all batches, as torch's own norms have it.
            share = 1.0 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean + shift.flatten(), share)
            self.running_var.lerp_(var * (count / (count - 1)), share)
        scale = self.weight * torch.rsqrt(var + self.eps)
        return ((centred - mean.view(shape)) * scale.view(shape) + self.bias.view(shape)).to(input.dtype)


def synchronise(model: nn.Module, device: torch.device) -> nn.Module:
    """Return the model with every batch norm computed over all workers; weights and buffers are kept."""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for name, child in model.named_children():
        if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
            layer = SyncBatchNorm(child.num_features, child.eps, child.momentum)
            layer.load_state_dict(child.state_dict())
            setattr(model, name, layer)
        else:
            synchronise(child, device)
    return model


@torch.no_grad()
def set_statistics(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set every batch norm's running statistics to the mean over batches, and nothing else; then set evaluation mode.

    Args:
        model: its weights are not changed.
        batches: features, each of at least two sounds.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # PyTorch takes the mean over all batches then
    model.train()
    for batch in batches:
        model(batch)
    model.eval()
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
