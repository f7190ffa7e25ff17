"""Softmax layers: the adaptive softmax (Grave et al. 2016) and the full one, with one interface.

Log-probabilities are computed in float32 whatever autocast does to the products before them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcnn.data.batches import IGNORE
from gcnn.models.layers import linear, weight_count

LOGITS_AT_ONCE = 1 << 22  # without gradients: larger tensors would be fetched from the system anew each time
FACTOR = 4  # cluster i projects from d to d / 4^(i+1)


class AdaptiveSoftmax(nn.Module):
    """Frequent words in the head, rarer words in clusters of smaller dimension; ids are sorted by frequency."""

    def __init__(self, hidden_dim: int, vocabulary_size: int, cutoffs: list[int], dropout: float = 0.0):
        super().__init__()
        self.cutoffs = [*cutoffs, vocabulary_size]
        self.shortlist = cutoffs[0]
        self.head = nn.Linear(hidden_dim, self.shortlist + len(cutoffs), bias=False)
        self.tails = nn.ModuleList()
        for i, (low, high) in enumerate(self.clusters()):
            tail_dim = max(1, hidden_dim // FACTOR ** (i + 1))
            down, up = (
                nn.Linear(hidden_dim, tail_dim, bias=False),
                nn.Linear(tail_dim, high - low, bias=False),
            )
            self.tails.append(nn.Sequential(down, nn.Dropout(dropout), up))
        for weight in self.parameters():
            nn.init.xavier_uniform_(weight)

    def clusters(self) -> list[tuple[int, int]]:
        """The range of ids of each cluster."""
        return list(zip(self.cutoffs[:-1], self.cutoffs[1:], strict=True))

    def nll(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Negative log-likelihood in nats: hidden (..., channels), targets (...) -> (...); 0 where IGNORE."""
        flat, wanted = hidden.reshape(-1, hidden.size(-1)), targets.reshape(-1)
        head_targets = wanted
        rare = []
        for i, (low, high) in enumerate(self.clusters()):
            inside = (wanted >= low) & (wanted < high)
            head_targets = torch.where(inside, self.shortlist + i, head_targets)
            rare.append(inside.nonzero().squeeze(1))
        nll = product_nll(self.head, flat, head_targets)
        for rows, tail, (low, _) in zip(rare, self.tails, self.clusters(), strict=True):
            if len(rows):
                nll = nll.index_add(0, rows, product_nll(tail, flat[rows], wanted[rows] - low))
        return nll.view(targets.shape)

    def log_prob(self, hidden: Tensor) -> Tensor:
        """Log-probabilities of all types: (..., channels) -> (..., vocabulary), nats."""
        head = F.log_softmax(self.head(hidden).float(), dim=-1)
        parts = [head[..., : self.shortlist]]
        for i, tail in enumerate(self.tails):
            within = F.log_softmax(tail(hidden).float(), dim=-1)
            parts.append(within + head[..., self.shortlist + i, None])
        return torch.cat(parts, dim=-1)

    def macs(self, frequencies: Tensor) -> float:
        """Multiply-accumulate operations for one target, expected under `frequencies` (vocabulary,) of the types."""
        head, *tails = self.weight_counts()
        shares = (float(frequencies[low:high].sum()) for low, high in self.clusters())
        return float(head + sum(tail * share for tail, share in zip(tails, shares, strict=True)))

    def weight_counts(self) -> list[int]:
        """Weights of the head and of each cluster: each is used once for every target there."""
        return [weight_count(self.head)] + [weight_count(down) + weight_count(up) for down, _, up in self.tails]


class FullSoftmax(nn.Module):
    """One softmax over all types; `projection_dim` puts a narrower linear layer before it, as fairseq does."""

    def __init__(
        self,
        hidden_dim: int,
        vocabulary_size: int,
        projection_dim: int | None,
        normalised: bool,
        dropout: float,
    ):
        super().__init__()
        layers = []
        if projection_dim is not None:
            layers += [linear(hidden_dim, projection_dim, normalised, 0.0), nn.Dropout(dropout)]
        layers.append(linear(projection_dim or hidden_dim, vocabulary_size, normalised, dropout))
        self.layers = nn.Sequential(*layers)

    def nll(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Negative log-likelihood in nats: hidden (..., channels), targets (...) -> (...); 0 where IGNORE."""
        flat, wanted = hidden.reshape(-1, hidden.size(-1)), targets.reshape(-1)
        return product_nll(self.layers, flat, wanted).view(targets.shape)

    def log_prob(self, hidden: Tensor) -> Tensor:
        """Log-probabilities of all types: (..., channels) -> (..., vocabulary), nats."""
        return F.log_softmax(self.layers(hidden).float(), dim=-1)

    def macs(self, frequencies: Tensor) -> float:
        """Multiply-accumulate operations for one target."""
        return float(sum(self.weight_counts()))

    def weight_counts(self) -> list[int]:
        """Weights, each used once for every target."""
        return [sum(weight_count(layer) for layer in self.layers if not isinstance(layer, nn.Dropout))]


def product_nll(layer: nn.Module, hidden: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of the logits layer(hidden): (n, channels), (n,) -> (n,) nats."""
    if torch.is_grad_enabled():
        return cross_entropy(layer(hidden), targets)
    rows = max(1, LOGITS_AT_ONCE // layer_width(layer))
    parts = zip(hidden.split(rows), targets.split(rows), strict=True)
    return torch.cat([cross_entropy(layer(some), wanted) for some, wanted in parts])


def layer_width(layer: nn.Module) -> int:
    return layer[-1].out_features if isinstance(layer, nn.Sequential) else layer.out_features


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """logits (n, types), targets (n,) -> (n,) nats, in float32."""
    return F.cross_entropy(logits.float(), targets, ignore_index=IGNORE, reduction="none")
