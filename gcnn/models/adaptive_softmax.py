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
    "cpu": 1 << 20,  # more leave the processor's cache
    "cuda": 1 << 28,
}
LEAST_ROWS = 64  # positions whose logits are computed together, however many: fewer are slower
LEAST_INDICES = 64  # of a cluster, for the compiler; a power of 2
FACTOR = 4  # cluster i projects from d to d / 4^(i+1)


class Softmax(nn.Module):
    """A softmax over types whose ids are sorted by frequency: a head, and clusters of rarer types.

    The head has a logit for each type below the first of `cutoffs` and one for each cluster;
    cluster i has the types from cutoff i to the next one. Without cutoffs there is the head alone.
    The base class of both softmaxes; a subclass adds the layers and `logit_layers`.
    """

    def __init__(self, cutoffs: list[int], vocabulary_size: int):
        """cutoffs: positive, increasing and below vocabulary_size; empty: no clusters."""
        super().__init__()
        self.ends = [*cutoffs, vocabulary_size]  # last id + 1, of the head's types and each cluster
        self.shortlist = self.ends[0]  # the number of the head's types
        self.tails = nn.ModuleList()  # of the clusters
        self.projection = nn.Identity()  # before all logits

    def clusters(self) -> list[tuple[int, int]]:
        """The ids of each cluster's types as (first, last + 1); those of the head are not in it."""
        return list(pairwise(self.ends))

    def cluster_indices(self, targets: Tensor, few_sizes: bool = False) -> list[Tensor]:
        """Where each cluster's targets are: for each cluster, ascending indices (n,) into the
        flattened targets. Without clusters the list is empty.

        Targets of the head and IGNORE are in none. On a GPU this makes the host wait, so call it
        while the targets are on the CPU.
        few_sizes: pad by `pad_indices`, so that torch.compile sees few sizes. The targets must then
        be on the CPU, and the result is for `nll` alone.
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

        hidden (..., channels), targets (...), int64 -> (...), float32 on the device of `hidden`;
        `...` is one dimension or more.
        cluster_indices: the result of `self.cluster_indices(targets)`, padded or not; it and the
        targets must then be on the device of `hidden`. None: it is computed here, and the targets
        may be on the CPU, so that the host does not wait for a GPU.
        """
        may_be_padded = cluster_indices is not None
        if cluster_indices is None:
            cluster_indices = self.cluster_indices(targets)
            cluster_indices = [to_device(indices, hidden.device) for indices in cluster_indices]
            targets = to_device(targets, hidden.device)
        flat_hidden = self.projection(hidden).flatten(0, -2)
        flat_targets = targets.reshape(-1)

        # The head predicts a frequent type, or the cluster of a rarer one
        head_targets = flat_targets
        for i, (low, high) in enumerate(self.clusters()):
            in_cluster = (flat_targets >= low) & (flat_targets < high)
            head_targets = torch.where(in_cluster, self.shortlist + i, head_targets)
        head, *tails = self.logit_layers()
        nll = product_nll(head, self.shortlist + len(tails), flat_hidden, head_targets)

        # A rarer type also has the nats of the type within its cluster
        for indices, tail, (low, high) in zip(cluster_indices, tails, self.clusters(), strict=True):
            # In training each parameter needs a gradient, if only 0: other processes wait for it
            if torch.is_grad_enabled() or len(indices):
                tail_hidden = flat_hidden.index_select(0, indices)
                tail_targets = flat_targets.index_select(0, indices) - low
                if may_be_padded:  # by the index of a target that is not in the cluster: it adds 0
                    others = (tail_targets < 0) | (tail_targets >= high - low)
                    tail_targets = tail_targets.masked_fill(others, IGNORE)
                tail_nll = product_nll(tail, high - low, tail_hidden, tail_targets)
                nll = nll.index_add(0, indices, tail_nll)
        return nll.view(targets.shape)

    def log_prob(self, hidden: Tensor) -> Tensor:
        """Log-probabilities of all types in nats, float32: (..., channels) -> (..., vocabulary).

        A type in a cluster has the probability of its cluster times its own within the cluster.
        """
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

        The head is computed for every target, a cluster only for its own.
        frequencies: each type's share of the targets, (vocabulary,), in the order of ids; sum 1.
        """
        head, *tails = self.weight_counts()
        shares = [float(frequencies[low:high].sum()) for low, high in self.clusters()]
        return float(head + sum(tail * share for tail, share in zip(tails, shares, strict=True)))

    def weight_counts(self) -> list[int]:
        """The number of weights of the head and of each cluster, without biases.

        The head's include a projection before it. Tied weights count like others.
        """
        tails = [weight_count(tail) for tail in self.tails]
        return [weight_count(self) - sum(tails), *tails]


def pad_indices(indices: Tensor, positions: int) -> Tensor:
    """A cluster's indices (n,), padded at their end to a power of 2, at least LEAST_INDICES.

    indices: ascending, on the CPU. positions: the number of targets; all indices are below it.
    The padding repeats the lowest index that is not among them. If there is none, because every
    target is in the cluster, the indices are returned unpadded.
    """
    # torch.compile makes a graph for each size, and special ones for 0 and 1
    if len(indices) == positions:
        return indices
    size = LEAST_INDICES
    while size < len(indices):
        size *= 2
    # Ascending indices begin 0, 1, 2, ... up to the first that is missing
    gaps = (indices != torch.arange(len(indices))).nonzero()
    free = int(gaps[0]) if len(gaps) else len(indices)
    return F.pad(indices, (0, size - len(indices)), value=free)


class AdaptiveSoftmax(Softmax):
    """The adaptive softmax (Grave et al. 2016): the rarer a cluster, the fewer channels it gets.

    Cluster i, from 0, maps the hidden states to hidden_dim / 4^(i+1) channels, rounded down, at
    least 1.
    With an `embedding`, weights are tied instead: the types' output vectors are their embeddings,
    in every cluster, and a projection maps the hidden states to their dimension (Press and Wolf
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
        """Initialises the weights at random; with an `embedding`, those of the projection alone:
        the head's weights for clusters, and all biases, are then 0.

        cutoffs: as in Softmax. dropout: between a cluster's two layers; tied weights have none.
        embedding: the encoder's, (vocabulary_size, any dimension), whose weights are used here but
        are not among this module's parameters; None: not tied.
        """
        super().__init__(cutoffs, vocabulary_size)
        if embedding is not None:
            self.projection = Linear(hidden_dim, embedding.embedding_dim, bias=False)
            nn.init.xavier_uniform_(self.projection.weight)
            self.embedding = (embedding,)  # in a tuple, not to be registered as a second copy
            self.head = TiedLinear(embedding.embedding_dim, self.shortlist, len(cutoffs))
            for low, high in self.clusters():
                self.tails.append(TiedLinear(embedding.embedding_dim, high - low))
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
        """For the head and each cluster, a function from hidden states to logits.

        The hidden states must have gone through `self.projection`.
        The head's logits are those of its types, then one for each cluster.
        """
        layers = [self.head, *self.tails]
        if not isinstance(self.head, TiedLinear):
            return layers
        vectors = self.tied_vectors()
        return [partial(layer, vectors=part) for layer, part in zip(layers, vectors, strict=True)]

    def tied_vectors(self) -> tuple[Tensor, ...]:
        """The embeddings of the head's types and of each cluster's, (types, embedding_dim) each.

        Views of the embedding, for tied weights only.
        """
        sizes = [high - low for low, high in self.clusters()]
        # Split once: the parts' gradients are joined in one copy, not each padded to full size
        return self.embedding[0].weight.split([self.shortlist, *sizes])

    @torch.no_grad()
    def untie(self) -> None:
        """Replace tied layers by plain linear ones with the same values, in place: for inference.

        The clusters' weights stay views of the embedding. The head's is a copy, or a view if there
        are no clusters. The state_dict has other keys afterwards, so load weights before.
        Does nothing if weights are not tied.
        """
        if not isinstance(self.head, TiedLinear):
            return
        head_vectors, *tail_vectors = self.tied_vectors()
        self.head = self.head.untied(head_vectors)
        tails = [
            tail.untied(vectors) for tail, vectors in zip(self.tails, tail_vectors, strict=True)
        ]
        self.tails = nn.ModuleList(tails)


class TiedLinear(nn.Module):
    """A linear layer to logits: of `types` types, whose weights are embeddings, then of `clusters`.

    types, clusters: how many. The embeddings are passed with each call; the clusters' weights and
    all biases are parameters.
    """

    def __init__(self, in_features: int, types: int, clusters: int = 0):
        super().__init__()
        self.in_features = in_features
        self.out_features = types + clusters
        self.clusters = nn.Parameter(torch.zeros(clusters, in_features)) if clusters else None
        self.bias = nn.Parameter(torch.zeros(self.out_features))

    def forward(self, hidden: Tensor, vectors: Tensor) -> Tensor:
        """hidden (..., in_features), vectors (types, in_features) -> logits (..., out_features)."""
        return linear_product(hidden, self.weight(vectors), self.bias)

    def weight(self, vectors: Tensor) -> Tensor:
        """The weights of all logits, types first: (out_features, in_features)."""
        return vectors if self.clusters is None else torch.cat([vectors, self.clusters])

    def untied(self, vectors: Tensor) -> nn.Linear:
        """A plain linear layer that computes the same with these vectors; it shares the bias."""
        layer = Linear(self.in_features, self.out_features, device="meta")
        layer.weight = nn.Parameter(self.weight(vectors))
        layer.bias = self.bias
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
        """Initialises the weights at random.

        normalised: with weight normalisation. dropout: on the output layer's input. Without
        projection_dim the caller applies it to `hidden`; here it only scales the initial weights.
        """
        super().__init__([], vocabulary_size)
        layers = []
        if projection_dim is not None:
            layers += [linear(hidden_dim, projection_dim, normalised, 0.0), nn.Dropout(dropout)]
        layers.append(linear(projection_dim or hidden_dim, vocabulary_size, normalised, dropout))
        self.layers = nn.Sequential(*layers)

    def logit_layers(self) -> list[nn.Module]:
        """The head alone, as there are no clusters."""
        return [self.layers]


def product_nll(
    layer: Callable[[Tensor], Tensor], width: int, hidden: Tensor, targets: Tensor
) -> Tensor:
    """Cross-entropy of the logits layer(hidden): hidden (n, channels), targets (n,) -> (n,) nats.

    width: the number of logits. In float32; 0 where the target is IGNORE. If gradients are off, the
    logits are computed block by block, to bound the memory.
    """
    if torch.is_grad_enabled():
        return cross_entropy(layer(hidden), targets)
    at_once = LOGITS_AT_ONCE.get(hidden.device.type, LOGITS_AT_ONCE["cpu"])
    rows = max(LEAST_ROWS, at_once // width)
    nlls = []
    for block, block_targets in zip(hidden.split(rows), targets.split(rows), strict=True):
        nlls.append(cross_entropy(layer(block), block_targets))
    return torch.cat(nlls)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """logits (n, types), targets (n,) -> (n,) nats, in float32; 0 where the target is IGNORE."""
    return F.cross_entropy(logits.float(), targets, ignore_index=IGNORE, reduction="none")
