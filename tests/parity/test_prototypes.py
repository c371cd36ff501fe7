"""Golden e: class centroids over batches, and the cap of their counts."""

import golden_arrays as golden
import torch

from domainbridge.methods.prototypes import PrototypeBank, empty_bank, running_mean
from domainbridge.ops.prototype_distance import class_sums

CLASSES, CHANNELS, SIZE = 19, 256, (24, 32)


def features_and_logits(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    features = golden.image(f"e/feat/{number}", (2, CHANNELS, *SIZE))
    logits = golden.image(f"e/logit/{number}", (2, CLASSES, *SIZE))
    label = golden.blocky_label(f"e/lab/{number}", (2, *SIZE), 2 if number == 0 else 4, ignored=0)
    logits.scatter_(1, label[:, None], 6.0)
    return features, logits


def test_centroids(compare) -> None:
    expected = golden.arrays("e_prototypes.npz")
    numbers = sorted({int(key[5]) for key in expected if key.startswith("batch")})
    bank = empty_bank(CLASSES, CHANNELS, torch.device("cpu"))
    for number in numbers:
        features, logits = features_and_logits(number)
        prediction = torch.from_numpy(expected[f"batch{number}_pred"]).long()
        if number != 2:  # batch 2 was overwritten by hand, as the index says
            compare("e predictions", logits.argmax(1), prediction, 0)
        sums, pixels = class_sums(features, prediction, CLASSES)
        seen = pixels >= 10
        means = sums / pixels.clamp_min(1)[:, :, None]
        compare("e classes seen", seen.nonzero()[:, 1], expected[f"batch{number}_ids"], 0)
        compare("e mean vectors", means[seen], expected[f"batch{number}_mean_vectors"], 1e-5)
        bank = running_mean(bank, means, seen, max_count=3000)
        compare("e centroids", bank.vectors, expected[f"batch{number}_vectors"], 1e-5)
        compare("e counts", bank.counts, expected[f"batch{number}_num"], 0)


def test_formula_of_features(compare) -> None:
    expected = golden.arrays("e_prototypes.npz")
    features, logits = features_and_logits(0)
    compare("e inputs", features.flatten()[:16], expected["batch0_feat_check"], 0)
    compare("e inputs", logits.flatten()[:16], expected["batch0_logit_check"], 0)


def test_capped_count(compare) -> None:
    """Once 3000 images are counted, each further one still weighs 1/3001."""
    expected = golden.arrays("e_prototypes.npz")
    before = torch.from_numpy(expected["cap0_vec"])
    bank = PrototypeBank(before[None], torch.tensor([3000.0]))
    for number in (1, 2):
        after = torch.from_numpy(expected[f"cap{number}_vec"])
        mean = (after.double() * 3001 - bank.vectors[0].double() * 3000).float()
        bank = running_mean(bank, mean[None, None], torch.tensor([[True]]), 3000)
        compare("e capped centroid", bank.vectors[0], after, 1e-4)
        compare("e capped count", bank.counts[0], expected[f"cap{number}_num"], 0)
        bank = PrototypeBank(after[None], bank.counts)
