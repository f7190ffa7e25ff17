"""The adaptive softmax against torch's own, a dense reference, and itself under autocast."""

import itertools

import pytest
import torch
from torch import nn

from gcnn.models.adaptive_softmax import IGNORE, AdaptiveSoftmax, FullSoftmax

HIDDEN, VOCABULARY, CUTOFFS = 64, 120, [10, 40, 80]


@pytest.fixture
def softmax():
    torch.manual_seed(1)
    return AdaptiveSoftmax(HIDDEN, VOCABULARY, CUTOFFS)


@pytest.fixture
def hidden():
    return torch.randn(3, 50, HIDDEN, generator=torch.Generator().manual_seed(2)) * 3


@pytest.fixture
def targets():
    return torch.randint(0, VOCABULARY, (3, 50), generator=torch.Generator().manual_seed(3))


def torchs_own(softmax: AdaptiveSoftmax) -> nn.AdaptiveLogSoftmaxWithLoss:
    own = nn.AdaptiveLogSoftmaxWithLoss(HIDDEN, VOCABULARY, CUTOFFS, div_value=4.0)
    with torch.no_grad():
        own.head.weight.copy_(softmax.head.weight)
        for mine, theirs in zip(softmax.tails, own.tail, strict=True):
            theirs[0].weight.copy_(mine[0].weight)
            theirs[1].weight.copy_(mine[2].weight)
    return own


def dense_log_prob(softmax: AdaptiveSoftmax, hidden: torch.Tensor) -> torch.Tensor:
    """Each type's probability, type by type in float64: its cluster's times its own within it."""
    softmax = softmax.double()
    hidden = hidden.double()
    head = softmax.head(hidden).softmax(-1)
    columns = []
    for word in range(VOCABULARY):
        if word < CUTOFFS[0]:
            columns.append(head[..., word])
            continue
        cluster = sum(word >= cutoff for cutoff in CUTOFFS) - 1
        within = softmax.tails[cluster](hidden).softmax(-1)
        columns.append(head[..., CUTOFFS[0] + cluster] * within[..., word - CUTOFFS[cluster]])
    return torch.stack(columns, dim=-1).log()


def test_probabilities_sum_to_one(softmax, hidden):
    torch.testing.assert_close(softmax.log_prob(hidden).exp().sum(-1), torch.ones(3, 50))


def test_log_probabilities_equal_the_dense_reference(softmax, hidden, targets):
    found = softmax.log_prob(hidden)
    nll = softmax.nll(hidden, targets)
    dense = dense_log_prob(softmax, hidden).float()
    torch.testing.assert_close(found, dense, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        nll, -dense.gather(2, targets[..., None]).squeeze(2), rtol=1e-5, atol=1e-5
    )


def test_equals_torchs_own_with_gradients(softmax, hidden, targets):
    own = torchs_own(softmax)
    mine = hidden.clone().requires_grad_()
    theirs = hidden.clone().requires_grad_()
    loss = softmax.nll(mine, targets).mean()
    reference = own(theirs.view(-1, HIDDEN), targets.view(-1)).loss
    torch.testing.assert_close(loss, reference)
    loss.backward()
    reference.backward()
    torch.testing.assert_close(mine.grad, theirs.grad)
    torch.testing.assert_close(softmax.head.weight.grad, own.head.weight.grad)
    for tail, other in zip(softmax.tails, own.tail, strict=True):
        torch.testing.assert_close(tail[2].weight.grad, other[1].weight.grad)


def test_right_under_bf16_autocast(softmax, hidden, targets):
    """Losses and log-probabilities are float32, normalised, near the others; gradients arrive."""
    exact = softmax.nll(hidden, targets)
    with torch.autocast("cpu", torch.bfloat16):
        nll = softmax.nll(hidden, targets)
        log_prob = softmax.log_prob(hidden)
    nll.mean().backward()
    assert nll.dtype == log_prob.dtype == torch.float32
    assert (nll - exact).abs().max() < 0.1
    torch.testing.assert_close(log_prob.exp().sum(-1), torch.ones(3, 50))
    assert all(p.grad is not None and p.grad.isfinite().all() for p in softmax.parameters())


def test_ignored_targets_count_nothing(softmax, hidden, targets):
    masked = targets.clone()
    masked[:, ::3] = IGNORE
    nll = softmax.nll(hidden, masked)
    assert nll[:, ::3].eq(0).all()
    kept = masked != IGNORE
    torch.testing.assert_close(nll[kept], softmax.nll(hidden, targets)[kept])


@pytest.mark.parametrize("cutoffs", [CUTOFFS, []])
def test_tied_softmax_is_the_definition_in_the_embeddings(hidden, targets, cutoffs):
    """Logits are products of projected states and embeddings, plus biases; all get gradients."""
    torch.manual_seed(4)
    embedding = nn.Embedding(VOCABULARY, 24)
    softmax = AdaptiveSoftmax(HIDDEN, VOCABULARY, cutoffs, embedding=embedding)
    for parameter in softmax.parameters():
        nn.init.normal_(parameter, std=0.5)
    projected = hidden @ softmax.projection.weight.T
    logits = projected @ embedding.weight.T
    first = cutoffs[0] if cutoffs else VOCABULARY
    head = logits[..., :first]
    if cutoffs:
        head = torch.cat([head, projected @ softmax.head.clusters.T], dim=-1)
    head = (head + softmax.head.bias).log_softmax(-1)
    parts = [head[..., :first]]
    for i, (low, high) in enumerate(itertools.pairwise([*cutoffs, VOCABULARY])):
        within = (logits[..., low:high] + softmax.tails[i].bias).log_softmax(-1)
        parts.append(within + head[..., first + i, None])
    expected = torch.cat(parts, dim=-1)
    torch.testing.assert_close(softmax.log_prob(hidden), expected)
    found = softmax.nll(hidden, targets)
    nll = -expected.gather(2, targets[..., None]).squeeze(2)
    torch.testing.assert_close(found, nll)
    found, expected = (torch.autograd.grad(x.mean(), embedding.weight)[0] for x in (found, nll))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("projection_dim", [None, 8])
def test_full_softmax_is_a_cross_entropy(hidden, targets, projection_dim):
    softmax = FullSoftmax(HIDDEN, VOCABULARY, projection_dim, normalised=True, dropout=0.0)
    logits = hidden
    for layer in softmax.layers:
        logits = layer(logits)
    expected = nn.functional.cross_entropy(
        logits.view(-1, VOCABULARY), targets.view(-1), reduction="none"
    )
    torch.testing.assert_close(softmax.nll(hidden, targets), expected.view(3, 50))
    torch.testing.assert_close(
        softmax.log_prob(hidden).gather(2, targets[..., None]).squeeze(2), -expected.view(3, 50)
    )


def test_operations_are_head_and_the_expected_cluster(softmax):
    frequencies = torch.zeros(VOCABULARY)
    # In the shortlist; in the second cluster, of 40 types.
    frequencies[5] = 0.75
    frequencies[50] = 0.25
    second = HIDDEN * (HIDDEN // 16) + (HIDDEN // 16) * 40
    assert softmax.macs(frequencies) == HIDDEN * (10 + 3) + 0.25 * second
