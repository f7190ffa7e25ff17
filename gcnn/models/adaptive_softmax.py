"""Softmax layers: the adaptive softmax (Grave et al. 2016) and the full one, with one interface.

Log-probabilities are computed in float32 whatever autocast does to the products before them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcnn.models.layers import linear

IGNORE = -100  # targets that do not count
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
        nll = cross_entropy(self.head(flat), head_targets)
        for rows, tail, (low, _) in zip(rare, self.tails, self.clusters(), strict=True):
            if len(rows):
                nll = nll.index_add(0, rows, cross_entropy(tail(flat[rows]), wanted[rows] - low))
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
        total = float(self.head.weight.numel())
        for tail, (low, high) in zip(self.tails, self.clusters(), strict=True):
            total += sum(w.numel() for w in tail.parameters()) * float(frequencies[low:high].sum())
        return total


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
        logits = self.layers(hidden.reshape(-1, hidden.size(-1)))
        return cross_entropy(logits, targets.reshape(-1)).view(targets.shape)

    def log_prob(self, hidden: Tensor) -> Tensor:
        """Log-probabilities of all types: (..., channels) -> (..., vocabulary), nats."""
        return F.log_softmax(self.layers(hidden).float(), dim=-1)

    def macs(self, frequencies: Tensor) -> float:
        """Multiply-accumulate operations for one target."""
        return float(sum(layer.weight.numel() for layer in self.layers if isinstance(layer, nn.Linear)))


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """logits (n, types), targets (n,) -> (n,) nats, in float32."""
    return F.cross_entropy(logits.float(), targets, ignore_index=IGNORE, reduction="none")
