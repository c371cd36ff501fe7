"""A linear head: how much a trunk's map tells by itself, and the cheapest head for a strong trunk."""

from torch import Tensor, nn

from domainbridge.models.heads.base import Head, HeadSpec, register_head, reset_classifier

__all__ = ["LinearHead"]


@register_head("linear")
class LinearHead(Head):
    """BatchNorm, a 1x1 projection to the feature, dropout; then a 1x1 classifier. Nothing in it bends.

    The probe of DINOv2 (Oquab et al., arXiv 2304.07193), with a feature of chosen width for the prototypes.
    """

    needs = "deepest"

    def __init__(self, spec: HeadSpec, fine_channels: int, channels: int, num_classes: int) -> None:
        """``channels``: of the backbone's deepest map; its fine map is not used."""
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.project = nn.Conv2d(channels, spec.channels, 1)
        self.dropout = nn.Dropout2d(spec.dropout)
        self.classifier = nn.Conv2d(spec.channels, num_classes, 1)

    def forward(self, fine: Tensor, deepest: Tensor) -> Tensor:
        """The feature, at the deepest map's resolution."""
        feature: Tensor = self.dropout(self.project(self.norm(deepest)))
        return feature

    def reset(self, *, published: bool) -> None:
        """N(0, 0.01) for the classifier; the projection keeps PyTorch's default."""
        reset_classifier(self)
