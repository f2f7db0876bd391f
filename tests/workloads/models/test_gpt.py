"""The small GPT: what each place sees, and what its weights are."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu

from study.workloads.models.gpt import GPT, Layer

TOKENS, CONTEXT, WIDTH, DEPTH, HEADS = 11, 6, 8, 3, 2


def gpt(tied_head: bool = True) -> GPT:
    torch.manual_seed(0)
    return GPT(TOKENS, CONTEXT, WIDTH, DEPTH, HEADS, tied_head)


def tokens(n: int = 4) -> Tensor:
    return torch.randint(TOKENS, (n, CONTEXT), generator=torch.Generator().manual_seed(1)).to(torch.uint8)


@pytest.mark.parametrize("changed", range(CONTEXT))
def test_a_byte_changes_no_logit_before_it_and_all_from_it_on(changed: int) -> None:
    model, x = gpt(), tokens()
    other = x.clone()
    other[:, changed] = (other[:, changed] + 1) % TOKENS
    moved = (model(x) - model(other)).abs().amax(dim=(0, 2))
    assert moved[:changed].tolist() == pytest.approx([0.0] * changed, abs=1e-5)
    assert (moved[changed:] > 1e-3).all()


def test_a_layer_is_what_its_formula_says() -> None:
    """Against loops over samples, heads and places."""
    torch.manual_seed(0)
    layer, x = Layer(WIDTH, HEADS), torch.randn(2, CONTEXT, WIDTH)
    part = WIDTH // HEADS
    expected = torch.empty_like(x)
    for n, sample in enumerate(x):
        normal = layer.attention_norm(sample)
        q, k, v = (layer.qkv(normal)[:, i * WIDTH : (i + 1) * WIDTH] for i in range(3))
        seen = torch.empty(CONTEXT, WIDTH)
        for head in range(HEADS):
            mine = slice(head * part, (head + 1) * part)
            for place in range(CONTEXT):
                scores = torch.stack([q[place, mine] @ k[j, mine] / math.sqrt(part) for j in range(place + 1)])
                shares = scores.softmax(0)
                seen[place, mine] = sum(shares[j] * v[j, mine] for j in range(place + 1))
        between = sample + layer.mixed(seen)
        expected[n] = between + layer.down(gelu(layer.up(layer.mlp_norm(between))))
    assert torch.allclose(layer(x), expected, atol=1e-5)


def test_a_head_of_zeros_predicts_all_bytes_alike() -> None:
    model = GPT(256, CONTEXT, WIDTH, DEPTH, HEADS, tied_head=False)
    nn.init.zeros_(model.head.weight)
    logits = model(tokens())
    assert cross_entropy(logits.flatten(0, 1), tokens().flatten().long()).item() == pytest.approx(math.log(256))


def test_a_tied_head_has_the_weight_of_the_embedding() -> None:
    tied, free = gpt(True), gpt(False)
    sizes = [sum(weight.numel() for weight in model.parameters()) for model in (tied, free)]
    layer = 12 * WIDTH**2 + 13 * WIDTH  # four matrices of 3, 1, 4 and 4 squares with their biases, and two norms
    assert sizes[0] == (TOKENS + CONTEXT) * WIDTH + DEPTH * layer + 2 * WIDTH
    assert sizes[1] == sizes[0] + TOKENS * WIDTH
    optimizer = torch.optim.AdamW(tied.parameters(), 0.1)
    tied(tokens()).square().mean().backward()
    optimizer.step()
    assert tied.head.weight is tied.embedding.weight
    again = gpt(True)
    again.load_state_dict(tied.state_dict())
    assert torch.equal(again.head.weight, tied.embedding.weight)


def test_a_fresh_network_guesses_as_its_variance_says() -> None:
    torch.manual_seed(0)
    model = GPT(256, CONTEXT, 64, DEPTH, HEADS, tied_head=False)
    x = torch.randint(256, (256, CONTEXT))
    # Logits of variance 64 x 2 / (5 x 64) = 0.4 around 0 cost half of it more than equal ones.
    loss = cross_entropy(model(x).flatten(0, 1), x.roll(-1, 1).flatten()).item()
    assert loss == pytest.approx(math.log(256) + 0.2, abs=0.05)


def test_shorter_and_empty_batches_are_taken() -> None:
    assert gpt()(tokens()[:, :3]).shape == (4, 3, TOKENS)
    assert gpt()(tokens()[:0]).shape == (0, CONTEXT, TOKENS)
