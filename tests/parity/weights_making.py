"""Small models of random weights, and their checkpoints."""

import torch
from torch import nn

from mae_lightning.models import Pixels, TransformerDecoder, ViTSize
from mae_lightning.tasks import Classification, MAEPretraining

IMAGES = {"image_size": (16, 24), "num_channels": 1, "mean": (0.3,), "std": (0.4,)}
SIZE = ViTSize(32, 2, 4, 8, mlp_ratio=2.0)


def randomized(model: nn.Module) -> nn.Module:
    """Every weight drawn anew, norms about one, so that no tensor can stand for another."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            nn.init.normal_(value, mean=1.0 if "norm" in name and name.endswith("weight") else 0.0, std=0.15)
        for name, value in model.named_buffers():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2)
            elif name.endswith("running_mean"):
                value.normal_()
    return model.eval()


def saved(task, path):
    torch.save({"state_dict": task.state_dict(), "mae_lightning": task.card().to_dict(), "epoch": 2}, path)
    return str(path)


def pretraining(**options):
    decoder = TransformerDecoder(depth=2, dim=16, num_heads=2, mlp_ratio=2.0)
    return randomized(MAEPretraining(**{"encoder": SIZE, "decoder": decoder, "target": Pixels()} | IMAGES | options))


def classification(**options):
    return randomized(Classification(**{"encoder": SIZE, "num_classes": 5} | IMAGES | options))
