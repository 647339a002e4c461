"""Features to class: average pooling and one linear layer."""

from torch import Tensor, nn

from knowhue.tensors import Logits, Pyramid


class Classifier(nn.Module):
    """Logits from the coarsest map of the base."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, classes)

    def forward(self, pyramid: Pyramid) -> Logits:
        """(B, C, h, w), the last of the pyramid, to (B, classes)."""
        pooled: Tensor = pyramid[-1].float().mean((2, 3))
        return self.linear(pooled).float()
