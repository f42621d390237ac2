"""sample: the trained generators in; the image set to score, and figures of samples, out."""

import json

from gan.params import Params
from stages.layout import SAMPLE_FIGURES, SAMPLES, TRAINED
from stages.stage import new_folder, run_stage

GRID_ROWS = GRID_COLUMNS = 10
INTERPOLATION_ROWS = INTERPOLATION_STEPS = 10
ANIMATION_ROWS = ANIMATION_COLUMNS = 5
ANIMATION_SECONDS = 0.35


def sample(params: Params) -> None:
    """Generate `sample.count` images, a grid of the first, an interpolation, and an animation through training."""
    import numpy as np

    from gan.data.packed import file_md5
    from gan.device import open_device
    from gan.figures.grid import save_animation, save_png, tile
    from gan.networks.build import load_generator
    from gan.sampling import draw_latents, generate, interpolate
    from gan.seeds import derive_seed

    device = open_device(params.hardware.device, params.hardware.threads, params.hardware.deterministic)
    file_name = "generator_ema.safetensors" if params.sample.ema else "generator.safetensors"
    generator, architecture = load_generator(TRAINED / file_name, device)
    z_dim, side, channels = architecture["z_dim"], architecture["image_size"], architecture["channels"]
    kept = sorted((TRAINED / "kept").glob(f"*/{file_name}")) or [TRAINED / file_name]
    scale = max(1, 64 // side)

    with new_folder(SAMPLES) as folder:
        latents = draw_latents(params.sample.count, z_dim, derive_seed(params.seed, "sample"))
        images = np.lib.format.open_memmap(
            folder / "images.npy", mode="w+", dtype=np.uint8, shape=(params.sample.count, side, side, channels)
        )
        done = 0
        for batch in generate(generator, latents, params.sample.batch_size, device):
            images[done : done + len(batch)] = batch
            done += len(batch)
        images.flush()
        manifest = {
            "count": params.sample.count,
            "ema": params.sample.ema,
            "generator_md5": file_md5(TRAINED / file_name),
            "images_md5": file_md5(folder / "images.npy"),
            "kept_md5": {str(file.relative_to(TRAINED)): file_md5(file) for file in kept},
            "seed": params.seed,
        }
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
        grid = tile(np.asarray(images[: GRID_ROWS * GRID_COLUMNS]), GRID_COLUMNS)

    with new_folder(SAMPLE_FIGURES) as folder:
        save_png(folder / "grid.png", grid, scale)

        starts, ends = draw_latents(2 * INTERPOLATION_ROWS, z_dim, derive_seed(params.seed, "interpolation")).chunk(2)
        path = interpolate(starts, ends, INTERPOLATION_STEPS).flatten(0, 1)
        frames = np.concatenate(list(generate(generator, path, params.sample.batch_size, device)))
        save_png(folder / "interpolation.png", tile(frames, INTERPOLATION_STEPS), scale)

        fixed = draw_latents(ANIMATION_ROWS * ANIMATION_COLUMNS, z_dim, derive_seed(params.seed, "animation"))
        grids = []
        for file in kept:
            earlier, _ = load_generator(file, device)
            grids.append(tile(next(generate(earlier, fixed, len(fixed), device)), ANIMATION_COLUMNS))
        save_animation(folder / "training.png", grids, ANIMATION_SECONDS, scale)


if __name__ == "__main__":
    run_stage("sample", sample)
