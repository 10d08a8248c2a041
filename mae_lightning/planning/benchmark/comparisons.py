"""Which candidates run side by side, and which of their paces make a ratio."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

import torch

from mae_lightning.models import MaskedAutoencoder, TransformerDecoder, step_flops
from mae_lightning.planning.benchmark.peers import check_peer, has_peer
from mae_lightning.planning.benchmark.ways import Build, Candidate, Compiled, Plain, Precision, Way
from mae_lightning.tasks import MAEPretraining, MaskedPretraining

PEER_TITLES = {"huggingface": "Hugging Face", "lightly": "lightly"}


@dataclass(frozen=True)
class Pair:
    """A ratio: of the pace of one candidate over that of another.

    Attributes:
        fast: The one.
        slow: The other.
        title: In tables; by default both titles.
        flops: The other's operations over the one's.
        paper: The same ratio as published.
    """

    fast: str
    slow: str
    title: str = ""
    flops: float | None = None
    paper: float | None = None


@dataclass(frozen=True)
class Comparison:
    """What runs side by side.

    Attributes:
        model: Its name in tables.
        build: The model.
        candidates: All of them.
        pairs: The ratios that are of interest.
        measures_memory: Whether the peak of each is.
    """

    model: str
    build: Build
    candidates: tuple[Candidate, ...]
    pairs: tuple[Pair, ...] = ()
    measures_memory: bool = True


def named_model(
    encoder: str, image_size: int, device: str, *, decoder_depth: int = 8, mask_tokens: bool = False
) -> MAEPretraining:
    """The paper's masked autoencoder by its encoder's name."""
    with torch.device(device):
        return MAEPretraining(
            encoder,
            TransformerDecoder(depth=decoder_depth),
            image_size=(image_size, image_size),
            mask_token_in_encoder=mask_tokens,
        )


def alone(model: str, build: Build, precision: Precision, compiled: Iterable[Compiled]) -> Comparison:
    """Our own step, compiled in some ways."""
    candidates = _ours(build, precision, compiled)
    pairs = tuple(Pair(other.title, candidates[0].title) for other in candidates[1:])
    return Comparison(model, build, candidates, pairs)


def with_peers(model: str, build: Build, precision: Precision, compiled: Iterable[Compiled], device: str) -> Comparison:
    """Our step against those of others.

    Raises:
        ValueError: Hugging Face's package is missing, or the others have no such model.
    """
    check_peer("huggingface", build("meta"))
    is_gpu = device == "cuda"
    ours = _ours(build, precision, compiled)
    if precision != "fp32" and not is_gpu:
        ours = (*_ours(build, "fp32", ["none"]), *ours)
    precisions: tuple[Precision, ...] = ("bf16", "fp16") if is_gpu else ("fp32", "bf16")
    peers = [
        Candidate(f"{title}, {each}", build, Way(peer, each, fused=False))  # type: ignore[arg-type]
        for peer, title in PEER_TITLES.items()
        if has_peer(peer)
        for each in precisions
    ]
    if is_gpu:
        way = Way("huggingface", "fp16", fused=False, explicit=True, waits=True)
        peers.append(Candidate("the official way", build, way))
    pairs = tuple(Pair(one.title, other.title) for other in peers for one in ours)
    return Comparison(model, build, (*ours, *peers), pairs)


TECHNIQUES: dict[Plain, str] = {
    "embed": "visible patches embedded, not all",
    "queries": "last decoder block for masked tokens, not all",
    "order": "visible before masked tokens, not put back",
    "head": "head and loss of masked patches, not all",
    "attention": "our attention, not written out everywhere",
    "fused": "our attention, not torch's kernel",
    "input": "bytes from the host, not floats",
    "memory": "freed memory kept, not given back",
}
ON_A_CPU: tuple[Plain, ...] = ("memory",)
"""On a GPU these are nothing of ours."""
WITHOUT_QUERIES: tuple[Plain, ...] = ("order", "head")
"""These plain ways take the last decoder block's visible tokens too, and are measured against that."""


def techniques(model: str, build: Build, precision: Precision, compiled: Iterable[Compiled], device: str) -> Comparison:
    """Our step against the same with one thing done the plain way, one at a time.

    Raises:
        ValueError: The model is not one for which the plain ways are known.
    """
    check_techniques(build("meta"))
    ours = Candidate(_title(Way(precision=precision)), build, Way(precision=precision))
    titles = {name: title for name, title in TECHNIQUES.items() if device == "cpu" or name not in ON_A_CPU}
    plain = {
        name: Candidate(f"without: {title}", build, replace(ours.way, plain=name)) for name, title in titles.items()
    }
    pairs = [
        Pair(plain["queries"].title if name in WITHOUT_QUERIES else ours.title, plain[name].title, title)
        for name, title in titles.items()
    ]
    others = [("fused AdamW, not as it comes", replace(ours.way, fused=False))]
    if precision != "fp32":
        others.append((f"{precision}, not fp32", replace(ours.way, precision="fp32")))
    candidates = [Candidate(f"without: {title}", build, way) for title, way in others]
    pairs += [Pair(ours.title, one.title, title) for one, (title, _) in zip(candidates, others, strict=True)]
    faster = _ours(build, precision, [each for each in compiled if each != "none"])
    pairs += [Pair(one.title, ours.title, one.title) for one in faster]
    return Comparison(model, build, (ours, *plain.values(), *candidates, *faster), tuple(pairs), measures_memory=False)


def check_techniques(task: MaskedPretraining) -> None:
    """Refuses a model for which the plain ways are not known.

    Raises:
        ValueError: It is one.
    """
    model = task.model
    is_known = isinstance(model, MaskedAutoencoder) and type(model.decoder) is TransformerDecoder
    if not is_known or model.loss_on != "masked" or model.mask_token_in_encoder:
        raise ValueError("--techniques: the plain ways are those of the paper's masked autoencoder; this is another")


TABLE_2: dict[str, dict[int, float]] = {"large/16": {8: 2.8, 1: 3.7}, "huge/14": {8: 3.5, 1: 4.1}}
"""He et al. 2021, Table 2: how much faster by the decoder's depth, against mask tokens in the encoder and depth 8."""


def table_2(encoder: str, image_size: int, precision: Precision, compiled: Compiled = "none") -> Comparison:
    """With mask tokens in the encoder, without, and without with a decoder of one block."""
    model = partial(named_model, encoder, image_size)
    builds: dict[str, Callable[[str], MaskedPretraining]] = {
        "mask tokens in the encoder, 8 blocks": partial(model, mask_tokens=True),
        "8 blocks": model,
        "1 block": partial(model, decoder_depth=1),
    }
    flops = {title: flops_of(build) for title, build in builds.items()}
    way = Way(precision=precision, compiled=compiled)
    candidates = tuple(Candidate(title, build, way) for title, build in builds.items())
    slow, *others = builds
    pairs = tuple(
        Pair(title, slow, title, flops[slow] / flops[title], TABLE_2.get(encoder, {}).get(int(title[0])))
        for title in others
    )
    return Comparison(encoder, model, candidates, pairs, measures_memory=False)


def flops_of(build: Build) -> float:
    """Operations of a step for one image."""
    task = build("meta")
    return float(step_flops(task.model, task.num_kept))


def _ours(build: Build, precision: Precision, compiled: Iterable[Compiled]) -> tuple[Candidate, ...]:
    ways = [Way(precision=precision, compiled=each) for each in compiled]
    return tuple(Candidate(_title(way), build, way) for way in ways)


def _title(way: Way) -> str:
    return f"ours, {way.precision}" + ("" if way.compiled == "none" else f", {way.compiled} compiled")
