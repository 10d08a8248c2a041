"""Attention, by the kernel that is fastest where it runs."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.layers import attention as timm_attention
from torch import Tensor, nn


class Attention(timm_attention.Attention):
    """timm's attention, with :func:`attend` in place of torch's kernel.

    Attributes:
        always_fused: Whether that is torch's kernel everywhere; see :func:`fuse_attention`.
    """

    always_fused: bool = False

    def forward(
        self, x: Float[Tensor, "batch token dim"], attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Float[Tensor, "batch token dim"]:
        """Tokens after attention."""
        drops = self.training and self.attn_drop.p > 0
        if not self.fused_attn or attn_mask is not None or is_causal or drops:
            tokens: Tensor = super().forward(x, attn_mask, is_causal)
            return tokens
        query, key, value = split_heads(self.qkv(x), 3, self.num_heads)
        read = attend(self.q_norm(query), self.k_norm(key), value, always_fused=self.always_fused)
        read = self.norm(read.transpose(1, 2).flatten(2))
        if self.gate is not None:
            read = read * self.gate(x).sigmoid()
        result: Tensor = self.proj_drop(self.proj(read))
        return result


def split_heads(
    projected: Float[Tensor, "batch token channels"], parts: int, num_heads: int
) -> tuple[Float[Tensor, "batch head token channel"], ...]:
    """Queries, keys and values of each head, out of one projection to all of them."""
    split: Tensor = projected.unflatten(2, (parts, num_heads, -1))  # type: ignore[no-untyped-call]
    return split.permute(2, 0, 3, 1, 4).unbind()


def attend(
    query: Float[Tensor, "batch head asked channel"],
    key: Float[Tensor, "batch head token channel"],
    value: Float[Tensor, "batch head token channel"],
    *,
    always_fused: bool = False,
) -> Float[Tensor, "batch head asked channel"]:
    """softmax(Q K^T / sqrt(d)) V: torch's fused kernel, but written out on a CPU in 16 bits.

    There torch's kernel (2.15) takes about three times as long, most of it in the backward pass; ``bench step
    --techniques`` measures what that makes of a whole step.
    """
    is_fused = always_fused or query.device.type != "cpu" or query.dtype not in (torch.bfloat16, torch.float16)
    return (F.scaled_dot_product_attention if is_fused else written_out)(query, key, value)


def fuse_attention(model: nn.Module) -> None:
    """Lets all attention of a model be torch's fused kernel, as it is on a GPU, wherever and in whatever it runs."""
    for module in model.modules():
        if hasattr(module, "always_fused"):
            module.always_fused = True  # type: ignore[assignment]


def written_out(
    query: Float[Tensor, "batch head asked channel"],
    key: Float[Tensor, "batch head token channel"],
    value: Float[Tensor, "batch head token channel"],
) -> Float[Tensor, "batch head asked channel"]:
    """The same by two products and a softmax."""
    scores = query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)
    read: Tensor = scores.softmax(dim=-1) @ value
    return read
