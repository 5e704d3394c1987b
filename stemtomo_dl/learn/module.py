"""The training loop's body, as Lightning wants it."""

from __future__ import annotations

import copy
import math
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from stemtomo_dl.learn.detection import scores
from stemtomo_dl.learn.examples import Example
from stemtomo_dl.learn.losses import Targets, losses
from stemtomo_dl.learn.recipe import LearningSettings
from stemtomo_dl.learn.tune import judged
from stemtomo_dl.segment.networks.prompted import PromptedNetwork
from stemtomo_dl.segment.predict import Tuning

_LEAST_RATE = 0.02  # of the rate, at the end
_TRIAL = Tuning(scales=(1.0,), least_score=0.05)  # validation examples are as large as training examples


class Module(L.LightningModule):
    """A network that learns, and the moving average of its weights, which is what is kept.

    Parameters
    ----------
    network : PromptedNetwork
    settings : LearningSettings
    trials : list of Example
        Validation examples.
    """

    def __init__(self, network: PromptedNetwork, settings: LearningSettings, trials: list[Example]) -> None:
        super().__init__()
        self.network, self.settings, self.trials = network, settings, trials
        self.average = copy.deepcopy(network).requires_grad_(False).eval()

    def training_step(self, batch: Targets, index: int) -> Tensor:
        """One step of the descent."""
        parts = losses(self.network, batch, self.settings.masks)
        total = torch.stack(list(parts.values())).sum()
        values = {f"train/{k}": v.detach() for k, v in parts.items()}
        self.log_dict({**values, "train/loss": total.detach()}, batch_size=len(batch.planes))
        return total

    def on_train_batch_end(self, *args: Any) -> None:
        """Move the average toward the weights; at the beginning it follows at once."""
        keep = min(self.settings.average, (1 + self.global_step) / (10 + self.global_step))
        with torch.no_grad():
            for mean, now in zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True):
                if mean.is_floating_point():
                    mean.lerp_(now, 1 - keep)
                else:
                    mean.copy_(now)

    def validation_step(self, batch: Any, index: int) -> None:
        """Outline all validation examples with the averaged weights."""
        with torch.autocast(self.device.type, enabled=False):
            found = scores(judged(self.average, self.trials, _TRIAL))
        names = {"ap", "ap50", "ap75", "best_f1"}
        self.log_dict({f"valid/{k}": float(v or 0) for k, v in found.items() if k in names}, batch_size=1)

    def configure_optimizers(self) -> Any:
        """AdamW; the rate rises evenly, then falls as a cosine."""
        s = self.settings
        encoder = [p for n, p in self.network.named_parameters() if n.startswith("encoder.") and p.requires_grad]
        others = [p for n, p in self.network.named_parameters() if not n.startswith("encoder.") and p.requires_grad]
        groups = [{"params": others, "lr": s.rate}]
        if encoder:
            groups.append({"params": encoder, "lr": s.rate * s.encoder_rate})
        optimizer = torch.optim.AdamW(groups, weight_decay=s.decay)

        def rate(step: int) -> float:
            if step < s.warmup:
                return (step + 1) / s.warmup
            done = min((step - s.warmup) / max(s.steps - s.warmup, 1), 1.0)
            return _LEAST_RATE + (1 - _LEAST_RATE) * 0.5 * (1 + math.cos(math.pi * done))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def freeze(network: nn.Module, settings: LearningSettings) -> None:
    """Hold the encoder, or let it change by low-rank additions only, as the settings say."""
    if settings.what == "full":
        return
    encoder = network.get_submodule("encoder")
    encoder.requires_grad_(False)
    if settings.what == "adapter":
        add_adapters(encoder, settings.rank)


class Adapted(nn.Module):
    """A linear layer beside which a product of two thin matrices learns (LoRA, Hu et al. 2021, arXiv:2106.09685)."""

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        super().__init__()
        self.layer = layer
        self.down = nn.Linear(layer.in_features, rank, bias=False)
        self.up = nn.Linear(rank, layer.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output with the addition."""
        return self.layer(x) + self.up(self.down(x))


def add_adapters(module: nn.Module, rank: int) -> None:
    """Put an adapter beside every linear layer of a module."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, Adapted(child, rank))
        else:
            add_adapters(child, rank)


def merge_adapters(module: nn.Module) -> None:
    """Add what adapters have learned to the layers beside them; the network is then what it was, with new weights."""
    for name, child in module.named_children():
        if isinstance(child, Adapted):
            with torch.no_grad():
                child.layer.weight += child.up.weight @ child.down.weight
            setattr(module, name, child.layer)
        else:
            merge_adapters(child)
