"""Softmax layers: the adaptive softmax (Grave et al. 2016) and the full one, with one interface.

Log-probabilities are computed in float32 whatever autocast does to the products before them.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcnn.data.batches import IGNORE, to_device
from gcnn.models.half_precision import Linear, linear_product
from gcnn.models.layers import linear, weight_count

LOGITS_AT_ONCE = {  # logits computed together without gradients
    "cpu": 1 << 22,  # the memory of larger tensors would be allocated anew each time
    "cuda": 1 << 28,
}
LEAST_INDICES = 64  # of a cluster, for the compiler; a power of 2
FACTOR = 4  # cluster i projects from d to d / 4^(i+1)


class Softmax(nn.Module):
    """A softmax over types whose ids are sorted by frequency: a head, and clusters of rarer types.

    The head has a logit for each type below the first of `cutoffs` and one for each cluster;
    cluster i has the types from cutoff i to the next one. Without cutoffs there is the head alone.
    """

    def __init__(self, cutoffs: list[int], vocabulary_size: int):
        super().__init__()
        self.cutoffs = [*cutoffs, vocabulary_size]
        self.shortlist = self.cutoffs[0]
        self.tails = nn.ModuleList()  # of the clusters
        self.projection = nn.Identity()  # before all logits

    def clusters(self) -> list[tuple[int, int]]:
        """The range of ids of each cluster: the first, and the one after the last."""
        return list(pairwise(self.cutoffs))

    def cluster_indices(self, targets: Tensor, few_sizes: bool = False) -> list[Tensor]:
        """The indices of each cluster's targets among all, flattened: a tensor (n,) a cluster.

        With targets on a GPU the host waits for it, so ask before they go there. `few_sizes`:
        filled up by `pad_indices`, for the compiler.
        """
        targets = targets.reshape(-1)
        found = []
        for low, high in self.clusters():
            indices = ((targets >= low) & (targets < high)).nonzero().squeeze(1)
            found.append(pad_indices(indices, len(targets)) if few_sizes else indices)
        return found

    def nll(
        self, hidden: Tensor, targets: Tensor, cluster_indices: list[Tensor] | None = None
    ) -> Tensor:
        """Negative log-likelihood of each target, in nats; 0 where the target is IGNORE.

        hidden (..., channels), targets (...) -> (...).

        `cluster_indices` is what `self.cluster_indices(targets)` returns, on the device of
        `hidden`; None: it is computed here, and with targets on the CPU nothing waits for a GPU
        that holds `hidden`. A padded index, of another cluster's target, adds 0 to it.
        """
        may_be_padded = cluster_indices is not None
        if cluster_indices is None:
            cluster_indices = self.cluster_indices(targets)
            cluster_indices = [to_device(indices, hidden.device) for indices in cluster_indices]
            targets = to_device(targets, hidden.device)
        flat_hidden, flat_targets = self.projection(hidden).flatten(0, -2), targets.reshape(-1)
        head_targets = flat_targets
        for i, (low, high) in enumerate(self.clusters()):
            in_cluster = (flat_targets >= low) & (flat_targets < high)
            head_targets = torch.where(in_cluster, self.shortlist + i, head_targets)
        head, *tails = self.logit_layers()
        nll = product_nll(head, self.shortlist + len(tails), flat_hidden, head_targets)
        for indices, tail, (low, high) in zip(cluster_indices, tails, self.clusters(), strict=True):
            # In training each parameter gets a gradient, be it 0: other processes wait for it
            if torch.is_grad_enabled() or len(indices):
                tail_hidden = flat_hidden.index_select(0, indices)
                tail_targets = flat_targets.index_select(0, indices) - low
                if may_be_padded:
                    others = (tail_targets < 0) | (tail_targets >= high - low)
                    tail_targets = tail_targets.masked_fill(others, IGNORE)
                tail_nll = product_nll(tail, high - low, tail_hidden, tail_targets)
                nll = nll.index_add(0, indices, tail_nll)
        return nll.view(targets.shape)

    def log_prob(self, hidden: Tensor) -> Tensor:
        """Log-probabilities of all types: (..., channels) -> (..., vocabulary), nats."""
        hidden = self.projection(hidden)
        head_layer, *tails = self.logit_layers()
        head = F.log_softmax(head_layer(hidden).float(), dim=-1)
        parts = [head[..., : self.shortlist]]
        for i, tail in enumerate(tails):
            within = F.log_softmax(tail(hidden).float(), dim=-1)
            parts.append(within + head[..., self.shortlist + i, None])
        return torch.cat(parts, dim=-1)

    def macs(self, frequencies: Tensor) -> float:
        """The expected multiply-accumulate operations for one target.

        `frequencies` (vocabulary,), in the order of ids, sum to 1.
        """
        head, *tails = self.weight_counts()
        shares = (float(frequencies[low:high].sum()) for low, high in self.clusters())
        return float(head + sum(tail * share for tail, share in zip(tails, shares, strict=True)))

    def weight_counts(self) -> list[int]:
        """The weights of the head and of each cluster; a target multiplies each of its own once."""
        tails = [weight_count(tail) for tail in self.tails]
        return [weight_count(self) - sum(tails), *tails]


def pad_indices(indices: Tensor, positions: int) -> Tensor:
    """A cluster's indices among so many positions, filled up to one of few sizes with the index of
    another cluster's target; as they are where every position is the cluster's own.

    The compiler makes a graph for each size, and special ones for 0 and 1.
    """
    if len(indices) == positions:
        return indices
    size = LEAST_INDICES
    while size < len(indices):
        size *= 2
    # They ascend, so the first that is not its own place leaves that place free.
    gaps = (indices != torch.arange(len(indices))).nonzero()
    free = int(gaps[0]) if len(gaps) else len(indices)
    return F.pad(indices, (0, size - len(indices)), value=free)


class AdaptiveSoftmax(Softmax):
    """The adaptive softmax (Grave et al. 2016): each cluster has a smaller dimension than the last.

    With an `embedding`, weights are tied instead: the types' output vectors are their embeddings,
    in every cluster, and a projection brings the hidden states to their dimension (Press and Wolf
    2017; Inan et al. 2017; not in the paper).
    """

    def __init__(
        self,
        hidden_dim: int,
        vocabulary_size: int,
        cutoffs: list[int],
        dropout: float = 0.0,
        embedding: nn.Embedding | None = None,
    ):
        super().__init__(cutoffs, vocabulary_size)
        if embedding is not None:
            self.projection = Linear(hidden_dim, embedding.embedding_dim, bias=False)
            nn.init.xavier_uniform_(self.projection.weight)
            self.embedding = (embedding,)  # in a tuple, not to be registered as a second copy
            self.head = TiedLinear(embedding.embedding_dim, self.shortlist, len(cutoffs))
            self.tails.extend(
                TiedLinear(embedding.embedding_dim, high - low) for low, high in self.clusters()
            )
            return
        self.head = Linear(hidden_dim, self.shortlist + len(cutoffs), bias=False)
        for i, (low, high) in enumerate(self.clusters()):
            tail_dim = max(1, hidden_dim // FACTOR ** (i + 1))
            down = Linear(hidden_dim, tail_dim, bias=False)
            up = Linear(tail_dim, high - low, bias=False)
            self.tails.append(nn.Sequential(down, nn.Dropout(dropout), up))
        for weight in self.parameters():
            nn.init.xavier_uniform_(weight)

    def logit_layers(self) -> list[Callable[[Tensor], Tensor]]:
        """A function from hidden states to logits for the head and for each cluster."""
        layers = [self.head, *self.tails]
        if not isinstance(self.head, TiedLinear):
            return layers
        # Split once: the parts' gradients are joined in one copy, not each padded to full size
        vectors = self.embedding[0].weight.split(
            [self.shortlist, *(high - low for low, high in self.clusters())]
        )
        return [partial(layer, vectors=part) for layer, part in zip(layers, vectors, strict=True)]

    @torch.no_grad()
    def untie(self) -> None:
        """Give the layers weights of their own, with the same values, in place: for inference.

        Does nothing where weights are not tied.
        """
        if isinstance(self.head, TiedLinear):
            head, *tails = (
                layer.func.untied(layer.keywords["vectors"]) for layer in self.logit_layers()
            )
            self.head, self.tails = head, nn.ModuleList(tails)


class TiedLinear(nn.Module):
    """A linear layer to logits of types, whose weights are their embeddings, and of `clusters`.

    The embeddings are handed in with each call; the clusters' weights and all biases are its own.
    """

    def __init__(self, in_features: int, types: int, clusters: int = 0):
        super().__init__()
        self.in_features, self.out_features = in_features, types + clusters
        self.clusters = nn.Parameter(torch.zeros(clusters, in_features)) if clusters else None
        self.bias = nn.Parameter(torch.zeros(self.out_features))

    def forward(self, hidden: Tensor, vectors: Tensor) -> Tensor:
        """hidden (..., in_features), vectors (types, in_features) -> logits (..., out_features)."""
        return linear_product(hidden, self.weight(vectors), self.bias)

    def weight(self, vectors: Tensor) -> Tensor:
        """The weights of all logits: (out_features, in_features)."""
        return vectors if self.clusters is None else torch.cat([vectors, self.clusters])

    def untied(self, vectors: Tensor) -> nn.Linear:
        """A plain linear layer that computes the same."""
        layer = Linear(self.in_features, self.out_features, device="meta")
        layer.weight, layer.bias = nn.Parameter(self.weight(vectors)), self.bias
        return layer


class FullSoftmax(Softmax):
    """One softmax over all types.

    `projection_dim` puts a narrower linear layer before it, as fairseq does; None: no such layer.
    """

    def __init__(
        self,
        hidden_dim: int,
        vocabulary_size: int,
        projection_dim: int | None,
        normalised: bool,
        dropout: float,
    ):
        super().__init__([], vocabulary_size)
        layers = []
        if projection_dim is not None:
            layers += [linear(hidden_dim, projection_dim, normalised, 0.0), nn.Dropout(dropout)]
        layers.append(linear(projection_dim or hidden_dim, vocabulary_size, normalised, dropout))
        self.layers = nn.Sequential(*layers)

    def logit_layers(self) -> list[nn.Module]:
        """There are no clusters."""
        return [self.layers]


def product_nll(
    layer: Callable[[Tensor], Tensor], width: int, hidden: Tensor, targets: Tensor
) -> Tensor:
    """Cross-entropy of the logits layer(hidden): hidden (n, channels), targets (n,) -> (n,) nats.

    `width` is the number of logits. Without gradients they are computed in blocks, to bound the
    memory.
    """
    if torch.is_grad_enabled():
        return cross_entropy(layer(hidden), targets)
    at_once = LOGITS_AT_ONCE.get(hidden.device.type, LOGITS_AT_ONCE["cpu"])
    rows = max(1, at_once // width)
    blocks = zip(hidden.split(rows), targets.split(rows), strict=True)
    return torch.cat(
        [cross_entropy(layer(block), block_targets) for block, block_targets in blocks]
    )


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """logits (n, types), targets (n,) -> (n,) nats, in float32."""
    return F.cross_entropy(logits.float(), targets, ignore_index=IGNORE, reduction="none")
