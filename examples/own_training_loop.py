"""Self-training on mixed images in a loop of your own: the objective is domainbridge's, the rest is plain PyTorch.

python examples/own_training_loop.py [STEPS]
"""

import sys

import torch

from domainbridge import Batch, ModelSpec, SelfTraining, build_segmenter

CLASSES, SIZE = 3, 64


def crops(generator: torch.Generator) -> Batch:
    """Replace by your loader: images float32 in [0, 1], (batch, 3, height, width); labels int64, 255 = ignore."""
    label = torch.randint(CLASSES, (2, 4, 4), generator=generator).repeat_interleave(16, 1).repeat_interleave(16, 2)
    color = torch.tensor([[0.3, 0.3, 0.3], [0.8, 0.2, 0.2], [0.3, 0.5, 0.9]])
    source = color[label].permute(0, 3, 1, 2).contiguous()
    target = torch.rand(source.shape, generator=generator) * 0.3 + source.roll(1, 0) * 0.5
    return Batch(source, label, target.clamp(0, 1))


def main(steps: int) -> None:
    """Train for ``steps`` steps and print the losses of each."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    student = build_segmenter(ModelSpec("resnet18_v1c", 16, CLASSES))
    objective = SelfTraining(student, mixing="class")
    optimizer = torch.optim.AdamW(student.parameters(), lr=3e-4)
    student.train()
    for step in range(steps):
        objective.before_step(step)  # the EMA teacher follows the student
        optimizer.zero_grad()
        losses = {}
        for name, loss in objective.losses(crops(generator), generator):
            loss.backward()  # one by one: autograd keeps the activations of one forward pass
            losses[name] = loss.item()
        optimizer.step()
        shown = "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
        print(f"step {step + 1}: {shown}  pseudo-label share {objective.metrics['pseudo_label_share'].item():.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
