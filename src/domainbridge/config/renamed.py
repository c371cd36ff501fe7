"""Names of keys, values and stages that recipes had before version 0.2."""

__all__ = ["REMOVED", "RENAMED", "RENAMED_STAGES", "RENAMED_VALUES", "renamed_stage"]

RENAMED = {
    "later_rate": "later_rounds_lr_factor",
    "crop.max_class_share": "cat_max_ratio",
    "crop.tries": "max_tries",
    "sampling.balance": "domain_temperature",
    "sampling.temperature": "rcs_temperature",
    **{
        f"{section}.{old}": new
        for section in ("training", "stages")
        for old, new in {
            "accumulate": "gradient_accumulation_steps",
            "recompute": "activation_checkpointing",
            "head_multiplier": "head_lr_mult",
            "statistics": "adapt_batchnorm",
        }.items()
    },
    "distillation.weights_on": "rectify",
    "distillation.confidence_share": "weight_by_confidence",
    "runtime.workers": "num_workers",
    "sources.exclude": "exclude_files",
    "targets.exclude": "exclude_files",
    "targets.validation.exclude": "exclude_files",
    "evaluation.exclude": "exclude_classes",
}
"""Key before version 0.2 -> key now, in the same section; of ``stages`` without the stage's name."""
REMOVED = {"runtime.remember_listings": "files are listed at every start; leave the key out"}
RENAMED_VALUES = {("fidelity", "fixed"): "corrected"}
RENAMED_STAGES = ("-distil", "-distill")


def renamed_stage(name: str) -> str | None:
    """Today's name of a stage that was renamed, else None."""
    old, new = RENAMED_STAGES
    return name.removesuffix(old) + new if name.endswith(old) else None
