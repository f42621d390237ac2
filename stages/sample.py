"""sample: the trained generators in; the image set to score, and figures of samples, out."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gan.errors import InputError
from gan.params import Params
from stages.layout import SAMPLE_FIGURES, SAMPLES, TRAINED, TRAINING_SUMMARY, own_file
from stages.stage import count_taken, new_folder, run_stage

if TYPE_CHECKING:
    import torch

    from gan.data.packed import Images

GRID_ROWS = GRID_COLUMNS = 10
INTERPOLATION_ROWS = INTERPOLATION_STEPS = 10
ANIMATION_ROWS = ANIMATION_COLUMNS = 5
ANIMATION_SECONDS = 0.35
FILM_STRIP_ROWS = 8


def sample(params: Params) -> None:
    """Generate `sample.count` images, or take those of `evaluate.samples`, and draw the figures of them."""
    if params.evaluate.samples is not None:
        _take_samples(params, params.evaluate.samples)
    else:
        _generate_samples(params)


def _take_samples(params: Params, given: str) -> None:
    from gan.data.given import open_samples
    from gan.data.packed import file_md5, image_writer, read_images
    from gan.data.progress import progress
    from gan.seeds import derive_seed

    side, channels = params.data.image_size, params.data.channels
    try:
        with (
            new_folder(SAMPLES) as folder,
            open_samples(own_file(given), side, channels, derive_seed(params.seed, "order")) as (count, images),
            progress("reading samples", count, "images") as advance,
        ):
            if count < 2:
                raise InputError(f"{given} holds one image, and scores take at least 2")
            with image_writer(folder, "images", (side, side, channels)) as write:
                for image in images:
                    write(image)
                    advance(1)
            manifest = {
                "origin": "given images",
                "count": count,
                "images_md5": file_md5(folder / "images.npy"),
                "seed": params.seed,
            }
            _write_manifest(folder, manifest)
    except InputError as error:
        raise InputError(f"evaluate.samples: {error}") from None
    with new_folder(SAMPLE_FIGURES) as folder:
        _draw_grid(folder, read_images(SAMPLES, "images"))


def _generate_samples(params: Params) -> None:
    from gan.data.batches import to_packed
    from gan.data.packed import file_md5, image_writer, read_images
    from gan.device import open_device, with_others
    from gan.networks.build import load_generator
    from gan.sampling import draw_latents, generate
    from gan.seeds import derive_seed

    device = open_device(params.hardware.device, params.hardware.threads, params.hardware.deterministic)
    given = params.sample.generator
    name = "generator_ema.safetensors" if params.sample.ema else "generator.safetensors"
    file = TRAINED / name if given is None else own_file(given)
    kept = [] if given is not None else sorted((TRAINED / "kept").glob(f"*/{name}")) or [file]
    try:
        generator, architecture = load_generator(file, device)
    except InputError as error:
        raise InputError(f"sample.generator: {error}" if given is not None else str(error)) from None
    side, channels = architecture["image_size"], architecture["channels"]
    if (side, channels) != (params.data.image_size, params.data.channels):
        raise InputError(
            f"sample.generator: {given} draws images of {side}x{side} pixels and {channels} channels; set "
            f"data.image_size={side} and data.channels={channels}"
        )

    with new_folder(SAMPLES) as folder:
        latents = draw_latents(params.sample.count, architecture["z_dim"], derive_seed(params.seed, "sample"))
        # Not through a memory map: on a full disk, writing to one ends the process without a word.
        with image_writer(folder, "images", (side, side, channels)) as write:
            for batch in generate(
                generator,
                latents,
                params.sample.batch_size,
                with_others(device, count_taken("sample", params.hardware)),
            ):
                for image in to_packed(batch):
                    write(image)
        manifest = {
            "origin": "training" if given is None else "given generator",
            "count": params.sample.count,
            "ema": params.sample.ema if given is None else None,
            "generator": name if given is None else file.name,
            "generator_md5": file_md5(file),
            "images_md5": file_md5(folder / "images.npy"),
            "kept_md5": {str(path.relative_to(TRAINED)): file_md5(path) for path in kept},
            "seed": params.seed,
        }
        _write_manifest(folder, manifest)

    with new_folder(SAMPLE_FIGURES) as folder:
        _draw_grid(folder, read_images(SAMPLES, "images"))
        _draw_interpolation(folder, params, generator, architecture["z_dim"], device)
        if kept:
            _draw_training(folder, kept, params.seed, device)


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


def _scale(side: int) -> int:
    """How many times small images are enlarged, so that a figure can be looked at."""
    return max(1, 64 // side)


def _draw_grid(folder: Path, images: "Images") -> None:
    import numpy as np

    from gan.figures.grid import save_png, tile

    grid = tile(np.asarray(images[: GRID_ROWS * GRID_COLUMNS]), GRID_COLUMNS)
    save_png(folder / "grid.png", grid, _scale(images.shape[1]))


def _draw_interpolation(
    folder: Path, params: Params, generator: "torch.nn.Module", z_dim: int, device: "torch.device"
) -> None:
    import numpy as np

    from gan.data.batches import to_packed
    from gan.figures.grid import save_png, tile
    from gan.sampling import draw_latents, generate, interpolate
    from gan.seeds import derive_seed

    starts, ends = draw_latents(2 * INTERPOLATION_ROWS, z_dim, derive_seed(params.seed, "interpolation")).chunk(2)
    path = interpolate(starts, ends, INTERPOLATION_STEPS).flatten(0, 1)
    batches = generate(generator, path, params.sample.batch_size, [device])
    frames = np.concatenate([to_packed(batch) for batch in batches])
    save_png(folder / "interpolation.png", tile(frames, INTERPOLATION_STEPS), _scale(frames.shape[1]))


def _draw_training(folder: Path, kept: list[Path], seed: int, device: "torch.device") -> None:
    """The same latents by each kept generator, in motion and as a strip for print."""
    from gan.data.batches import to_packed
    from gan.figures.grid import film_strip, save_animation, tile
    from gan.networks.build import load_generator
    from gan.sampling import draw_latents, generate
    from gan.seeds import derive_seed

    frames = []
    for file in kept:
        generator, architecture = load_generator(file, device)
        count = ANIMATION_ROWS * ANIMATION_COLUMNS
        latents = draw_latents(count, architecture["z_dim"], derive_seed(seed, "animation"))
        frames.append(to_packed(next(generate(generator, latents, count, [device]))))
    grids = [tile(images, ANIMATION_COLUMNS) for images in frames]
    save_animation(folder / "training.png", grids, ANIMATION_SECONDS, _scale(frames[0].shape[1]))

    summary = json.loads(TRAINING_SUMMARY.read_text())
    steps = [int(file.parent.name) if file.parent.name.isdigit() else summary["steps"] for file in kept]
    kimg = [step * summary["kimg"] / summary["steps"] for step in steps]
    film_strip(folder / "filmstrip.png", [images[:FILM_STRIP_ROWS] for images in frames], kimg)


if __name__ == "__main__":
    run_stage("sample", sample)
