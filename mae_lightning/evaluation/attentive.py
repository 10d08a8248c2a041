"""Attentive probe: one learned query attends over the frozen patch tokens."""

import torch
from jaxtyping import Float
from timm.layers.attention_pool import AttentionPoolLatent
from torch import Tensor, nn
from torch.nn import functional as F

from mae_lightning.evaluation.features import Labelled
from mae_lightning.evaluation.linear import Probe, hold_out_split
from mae_lightning.optim import warmup_cosine

LEARNING_RATES = (3e-4, 1e-3, 3e-3, 1e-2)
HEAD_DIM = 64


class AttentiveClassifier(nn.Module):
    """timm's attention pooling with a latent query (an MLP follows it, as in its ViTs), a norm and a linear head.

    Args:
        dim: Channels of a token.
        num_classes: Number of classes.
    """

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        num_heads = dim // HEAD_DIM if dim % HEAD_DIM == 0 else 1
        self.norm = nn.LayerNorm(dim)
        self.pool = AttentionPoolLatent(dim, num_heads=num_heads, norm_layer=nn.LayerNorm)
        self.head = nn.Linear(dim, num_classes)

    def forward(self, tokens: Float[Tensor, "batch patch dim"]) -> Float[Tensor, "batch class"]:
        """Logits."""
        logits: Tensor = self.head(self.pool(self.norm(tokens)))
        return logits


def attentive_probe(
    bank: Labelled,
    queries: Labelled,
    *,
    learning_rates: tuple[float, ...] = LEARNING_RATES,
    num_steps: int = 500,
    batch_size: int = 256,
    seed: int = 0,
) -> Probe:
    """As the linear probe on cached features, with AdamW (weight decay 0.05, 10 % warm-up, cosine to zero).

    Raises:
        ValueError: Every class has a single sample, so that nothing can be held out.
    """
    fit, chosen_on = hold_out_split(bank, seed)
    schedule = {"num_classes": bank.num_classes, "num_steps": num_steps, "batch_size": batch_size, "seed": seed}
    scores = {lr: _accuracy(_fitted(fit, lr, **schedule), chosen_on) for lr in learning_rates}
    best = max(scores, key=scores.__getitem__)
    return Probe(_accuracy(_fitted(bank, best, **schedule), queries), best, scores)


def _fitted(
    data: Labelled, lr: float, *, num_classes: int, num_steps: int, batch_size: int, seed: int
) -> AttentiveClassifier:
    device = data.labels.device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AttentiveClassifier(data.features.shape[-1], num_classes).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05)
    schedule = warmup_cosine(optimizer, num_steps // 10, num_steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(num_steps):
        rows = torch.randint(len(data), (min(batch_size, len(data)),), generator=generator).to(device)
        loss = F.cross_entropy(model(data.features[rows].float()), data.labels[rows])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def _accuracy(model: AttentiveClassifier, data: Labelled, chunk_size: int = 512) -> float:
    predicted = [model(tokens.float()).argmax(dim=1) for tokens in torch.split(data.features, chunk_size)]
    return float((torch.cat(predicted) == data.labels).double().mean())
