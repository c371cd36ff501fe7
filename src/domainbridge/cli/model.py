"""``evaluate`` and ``import``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from domainbridge.cli.run import Overrides
from domainbridge.cli.terminal import say

__all__ = ["evaluate", "import_"]

ModelArgument = Annotated[
    Path,
    typer.Argument(
        help="path to a folder with model.safetensors and config.json, or USER/NAME on the hub", metavar="MODEL"
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")]
JsonOption = Annotated[Path | None, typer.Option(help="path to a file for the scores as JSON")]
Slide = Annotated[bool, typer.Option("--slide", help="sliding windows of 512x512")]
Precision = Annotated[str, typer.Option(help="float32, or bfloat16 or float16 (autocast), faster on GPUs")]
Flip = Annotated[bool, typer.Option("--flip", help="average with the mirrored image")]
Scales = Annotated[
    str, typer.Option(help="average over sizes of the image at the network: factors with commas between: 0.75,1,1.25")
]


def evaluate(
    model: ModelArgument,
    recipe: Annotated[
        str | None,
        typer.Argument(
            help="path to a recipe or name of a shipped one: score its validation and test sets as `run` does"
        ),
    ] = None,
    overrides: Overrides = None,
    images: Annotated[Path | None, typer.Option(help="path to a folder of images")] = None,
    labels: Annotated[
        Path | None, typer.Option(help="path to a folder of labels, at the images' relative names")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="name of a known data set, as downloaded")] = None,
    root: Annotated[Path | None, typer.Option(help="path to the data set")] = None,
    split: Annotated[
        str | None, typer.Option(help="path to a text file with a stem per line; with --dataset: name of a split")
    ] = None,
    label_map: Annotated[
        str | None,
        typer.Option(
            help="what label values mean: 0=background,255=crack, or '#rrggbb=class', or path to a YAML file; default: "
            "the labels hold train ids",
            metavar="MAP",
        ),
    ] = None,
    label_space: Annotated[str | None, typer.Option(help="label space of the labels; default: the model's")] = None,
    label_scale: Annotated[
        float | None,
        typer.Option(min=0.01, max=1.0, help="with --dataset: size of the scored labels / size of the files"),
    ] = None,
    subset: Annotated[
        list[str] | None, typer.Option(help="name of a further mean: synthia16 or synthia13 classes")
    ] = None,
    json: JsonOption = None,
    slide: Slide = False,
    flip: Flip = False,
    scales: Scales = "1",
    device: Device = "auto",
    precision: Precision = "float32",
) -> None:
    """Score a model on labeled images: IoU per class and mIoU over one confusion matrix, in percent."""
    from json import dumps

    from domainbridge import api
    from domainbridge.build.recipe import load_recipe
    from domainbridge.cli.parsing import parse_scales, writable
    from domainbridge.cli.tables import print_scores
    from domainbridge.files import write_text

    if json is not None:
        writable(json, "--json")
    given: dict[str, Any] = {"images": images, "labels": labels, "dataset": dataset, "root": root, "split": split}
    given |= {"label_map": label_map, "label_space": label_space, "label_scale": label_scale, "subsets": subset or ()}
    changes = ["evaluation.mode=slide"] if slide else []
    changes += ["evaluation.flip=true"] if flip else []
    factors = parse_scales(scales, "--scales")
    changes += [f"evaluation.scales={list(factors)}"] if factors != (1.0,) else []
    changes += [f"evaluation.precision={precision}"] if precision != "float32" else []
    loaded = recipe and load_recipe(recipe, [*(overrides or []), *changes])
    predictor = api.load_model(model, slide=slide, flip=flip, scales=factors, device=device, precision=precision)
    result = api.evaluate(predictor, loaded or None, report=say, **given)
    for target, scores in result.items():
        print_scores(scores, f"{target}, {scores.images} images")
    if json is not None:
        write_text(
            json, dumps({"targets": {name: scores.to_json() for name, scores in result.items()}}, indent=1) + "\n"
        )


def import_(
    checkpoint: Annotated[Path, typer.Argument(help="path to a weight.pth of the authors or of a run of their code")],
    out: Annotated[Path, typer.Option(help="path to the model folder to write")],
    label_space: Annotated[
        str | None, typer.Option(help="label space of the classes; default: cityscapes19 for 19 classes")
    ] = None,
    resize: Annotated[
        str, typer.Option(help="size of images at the network, WIDTHxHEIGHT; 'none': as stored")
    ] = "1024x512",
    output_stride: Annotated[int, typer.Option(help="output stride of the backbone")] = 8,
    dilations: Annotated[str, typer.Option(help="dilations of the head's branches")] = "6,12",
) -> None:
    """Turn a checkpoint of the published system (the student of either step) into a model folder."""
    from domainbridge.cli.parsing import parse_numbers, parse_size
    from domainbridge.models.card_file import write_card
    from domainbridge.models.mmseg import import_checkpoint
    from domainbridge.models.model_folder import ModelConfig, save_model
    from domainbridge.report.model_card import plain_card

    size = parse_size(resize, "--resize")
    imported = import_checkpoint(checkpoint, label_space, output_stride, parse_numbers(dilations, "--dilations"))
    config = ModelConfig(
        imported.spec, imported.space.name, imported.space.classes, imported.space.colors, size and (*size, True, None)
    )
    save_model(out, imported.model, config)
    origin = f"Imported from {checkpoint.name}, a checkpoint of the published system."
    note = write_card(out, plain_card(out, out.absolute().name, origin))
    if note is not None:
        say(f"note: {note}")
    say(f"{imported.spec.backbone}, {len(imported.space)} classes of {imported.space.name}: {out}")
