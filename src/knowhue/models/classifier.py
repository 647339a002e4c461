"""Features to class: pool the coarsest map, by its mean or by attention, and one linear layer."""

from collections.abc import Callable

from torch import Tensor, nn

from knowhue.tensors import Logits, Pyramid


class Classifier(nn.Module):
    """Logits from the mean over the coarsest map of the encoder."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, classes)

    def forward(self, pyramid: Pyramid) -> Logits:
        """(B, C, h, w), the last of the pyramid, to (B, classes)."""
        pooled: Tensor = pyramid[-1].float().mean((2, 3))
        return self.linear(pooled).float()


class AttentionClassifier(nn.Module):
    """Logits from the mean over the coarsest map plus what several heads of attention find in it.

    Each head asks one learnt question of all positions: pooling by multi-head attention with one seed (Lee et al.,
    "Set Transformer", ICML 2019, section 3.2), on normalised features as in CaiT's class attention (Touvron et al.,
    ICCV 2021, section 3). The last projection starts at zero, so an untrained head, drawn from the same stream,
    answers as `Classifier` does.

    Where we differ from both: a question that does not depend on the image makes the projection of the keys
    redundant, so question and projection are one matrix; positions have no embedding, so a map may be of any size and
    the order of its positions does not matter; there is no feed-forward layer, and the mean is in the residual path
    instead of the seed.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, classes)  # first: it draws the same numbers as `Classifier`
        self.heads = next(heads for heads in (8, 4, 2, 1) if channels % heads == 0)
        self.norm = nn.LayerNorm(channels)
        self.question = nn.Linear(channels, self.heads, bias=False)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, pyramid: Pyramid) -> Logits:
        """(B, C, h, w), the last of the pyramid, to (B, classes)."""
        positions = pyramid[-1].float().flatten(2).transpose(1, 2)
        seen = self.norm(positions)
        attention = self.question(seen).float().softmax(1)
        values = self.value(seen).float().unflatten(2, (self.heads, -1))
        found = (attention.unsqueeze(3) * values).sum(1).flatten(1)
        return self.linear(positions.mean(1) + self.out(found).float()).float()


CLASSIFIERS: dict[str, Callable[[int, int], nn.Module]] = {
    "linear": Classifier,
    "attention": AttentionClassifier,
}
