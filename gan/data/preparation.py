"""From a source's native files to the packed image set: split, crop, resize, write."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import NoReturn

import numpy as np

from gan.data.decoding import SMALLER, Item, Outcome, Shares, convert_image, share_memory
from gan.data.packed import Labels, Manifest, Skipped, Split, finish_split, image_writer, write_manifest
from gan.data.progress import progress
from gan.data.sources import celeba_layout, folder, idx, mnist_5k
from gan.data.sources.source import Collection, Indices, UnreadableError, read_record
from gan.errors import InputError, one_line
from gan.seeds import derive_seed

RESIZE = "Pillow BICUBIC, antialiased"
BLOCK = 32
BLOCK_BYTES = 2**24
"""Images a worker is given at a time, and what they may weigh together, but for the last."""
PENDING_BYTES = 2**26
"""What all images may weigh that wait for a worker or are with one; a single one may weigh more."""
ENCODED = ("celeba", "folder")
"""Sources of encoded image files; the others hold raw pixels."""
NAMED = 5
LONGEST_NAME = 100
"""Unreadable images that an error message names, and characters of such a name."""
ENOUGH = 1000
"""Unreadable images, beyond those tolerated, after which no others are looked for."""


def prepare(
    raw: Path,
    out: Path,
    *,
    image_size: int,
    channels: int,
    crop: int | None,
    validation_fraction: float,
    test_fraction: float,
    max_bad_fraction: float,
    seed: int,
    workers: int,
    attribute: str | None = None,
) -> None:
    """Write the packed image set of the source in `raw` into the empty folder `out`.

    raw: what `fetch_source` wrote.
    image_size: side of the prepared images, in pixels.
    channels: 1, grey, or 3, colour.
    crop: side in pixels of the centre crop taken before resizing; None: the largest centred square.
    validation_fraction, test_fraction, seed: as for `split_indices`; a fraction of 0 writes no such split.
    max_bad_fraction: share of unreadable images that is tolerated; they are left out, and the manifest names them.
    workers: processes that decode and resize image files. The bytes written are the same for any number.
    attribute: celeba: what labels the images; None: they are unlabelled.

    Raises InputError for too many unreadable images, too few images for the splits, damaged files, and an attribute
    that the source does not have.
    """
    record = read_record(raw)
    written: dict[str, Split] = {}
    skipped: list[Skipped] = []
    convert = partial(convert_image, image_size=image_size, channels=channels, crop=crop)
    # Raw pixels are resized faster than they are handed to another process.
    workers = workers if record.source in ENCODED else 1
    with _open_source(record.source, raw, attribute) as collection, _in_blocks(convert, workers) as convert_all:
        splits = split_indices(
            len(collection.names),
            collection.labels,
            collection.official_splits,
            validation_fraction=validation_fraction,
            test_fraction=test_fraction,
            seed=seed,
        )
        looked_at, total = 0, len(collection.names)
        with progress("preparing images", total, "images") as advance:
            for name, indices in splits.items():
                kept: list[int] = []
                with image_writer(out, name, (image_size, image_size, channels)) as write:
                    outcomes = convert_all(_read(collection, int(index)) for index in indices)
                    for index, outcome in zip(indices.tolist(), outcomes, strict=True):
                        looked_at += 1
                        if isinstance(outcome, str):
                            skipped.append(Skipped(collection.names[index], outcome))
                            if len(skipped) > max_bad_fraction * total + ENOUGH:
                                _refuse(skipped, looked_at, total, max_bad_fraction, crop)
                        else:
                            write(outcome)
                            kept.append(index)
                        advance(1)
                labels = None if collection.labels is None else collection.labels[kept]
                n_classes = None if collection.classes is None else len(collection.classes)
                written[name] = finish_split(out, name, len(kept), labels, n_classes)
        if len(skipped) > max_bad_fraction * total:
            _refuse(skipped, looked_at, total, max_bad_fraction, crop)
        _check_filled({name: split.count for name, split in written.items()}, "once unreadable images are left out")
        write_manifest(
            out,
            Manifest(
                source=record.source,
                source_md5=record.files,
                image_size=image_size,
                channels=channels,
                crop=crop,
                resize=RESIZE,
                classes=collection.classes,
                splits=written,
                skipped=sorted(skipped, key=lambda item: item.name),
                published_images=collection.published_images,
            ),
        )


def split_indices(
    count: int,
    labels: Labels | None,
    official: Mapping[str, Indices],
    *,
    validation_fraction: float,
    test_fraction: float,
    seed: int,
) -> dict[str, Indices]:
    """The images of `train` and of the `validation` and `test` splits that are asked for, by position.

    Each class keeps its share in each split, to within one image, and in each beginning of a split too: images stand
    in an order that mixes the classes evenly. Of the source's `official` splits, validation and test are taken as they
    are, in their own order, and their fractions are not used; what is missing is cut from train. Splits never overlap
    and depend on `seed`, `official`, count and labels alone. Raises InputError if one would be empty.
    """
    free = official.get("train", np.arange(count))
    rest = free[_stratified_order(np.zeros(len(free), np.int64) if labels is None else labels[free], seed)]
    splits = {}
    for name, fraction in (("validation", validation_fraction), ("test", test_fraction)):
        if name in official:
            splits[name] = official[name]
        elif fraction > 0:
            splits[name], rest = np.split(rest, [round(fraction * len(free))])
    splits = {"train": rest} | splits
    _check_filled({name: len(indices) for name, indices in splits.items()}, f"of {len(free)} images to be split")
    return splits


def _stratified_order(labels: Labels, seed: int) -> Indices:
    """All positions, shuffled, so that any beginning holds each class in its share.

    Each class is shuffled and spread evenly over the unit interval; the interval is read from left to right.
    """
    shuffled = np.random.default_rng(derive_seed(seed, "split")).permutation(len(labels))
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return shuffled[np.argsort(place[shuffled], kind="stable")]


def _read(collection: Collection, index: int) -> Item:
    try:
        return collection.read(index)
    except UnreadableError as error:
        return error


def _open_source(source: str, raw: Path, attribute: str | None) -> AbstractContextManager[Collection]:
    if source == "celeba":
        return celeba_layout.open_images(raw, attribute)
    if source == "folder":
        return folder.open_images(raw)
    return nullcontext(mnist_5k.open_images(raw) if source == "mnist-5k" else idx.open_images(raw))


@contextmanager
def _in_blocks(
    convert: Callable[[Item], Outcome], workers: int
) -> Iterator[Callable[[Iterator[Item]], Iterator[Outcome]]]:
    """Yield a function that applies `convert` to many items in parallel and gives the outcomes in their order."""
    if workers == 1:
        yield partial(map, convert)
        return
    # A fork would copy the threads' locks of this process without its threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(Shares(context),)) as pool:

        def convert_all(items: Iterator[Item]) -> Iterator[Outcome]:
            pending: deque[tuple[int, Future[list[Outcome]]]] = deque()
            try:
                for block in _blocks(items):
                    pending.append((sum(map(_weight, block)), pool.submit(_convert_block, convert, block)))
                    while len(pending) > 2 * workers or (pending and sum(size for size, _ in pending) > PENDING_BYTES):
                        yield from pending.popleft()[1].result()
                while pending:
                    yield from pending.popleft()[1].result()
            except BrokenProcessPool:
                raise InputError(
                    "a process that decodes images was ended from outside, as when memory is full, or by a file that "
                    "its decoder does not survive; lower data.image_size, or end what else takes memory, and run it "
                    "again"
                ) from None

        yield convert_all


def _blocks(items: Iterator[Item]) -> Iterator[list[Item]]:
    block: list[Item] = []
    size = 0
    for item in items:
        block.append(item)
        size += _weight(item)
        if len(block) == BLOCK or size >= BLOCK_BYTES:
            yield block
            block, size = [], 0
    if block:
        yield block


def _weight(item: Item) -> int:
    """Bytes of an image, as it is handed to a worker."""
    if isinstance(item, UnreadableError):
        return 0
    return len(item) if isinstance(item, bytes) else item.nbytes


def _convert_block(convert: Callable[[Item], Outcome], items: Sequence[Item]) -> list[Outcome]:
    return [convert(item) for item in items]


def _start_worker(shares: Shares) -> None:
    """Make this worker end with its parent, however that ends; a terminal's Ctrl-C is the parent's to handle."""
    share_memory(shares)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _refuse(
    skipped: Sequence[Skipped], looked_at: int, total: int, max_bad_fraction: float, crop: int | None
) -> NoReturn:
    """Raise InputError for too many unreadable images, of those that were `looked_at` among a `total`."""
    if len(skipped) == looked_at and all(SMALLER in item.reason for item in skipped):
        every = "every image" if looked_at == total else f"each of the first {looked_at} images"
        raise InputError(
            f"data.crop: {crop} is larger than {every}, as {skipped[0].name!r} of "
            f"{skipped[0].reason.partition(',')[0]}; lower it, or use null for the largest square"
        )
    at_least = "" if looked_at == total else "at least "
    named = "; ".join(f"{one_line(repr(item.name), LONGEST_NAME)}: {item.reason}" for item in skipped[:NAMED])
    more = f"; and {len(skipped) - NAMED} more" if len(skipped) > NAMED else ""
    raise InputError(
        f"{at_least}{len(skipped)} of {total} images are unreadable, more than data.max_bad_fraction "
        f"{max_bad_fraction:g} allows; repair or remove them, or raise it: {named}{more}"
    )


def _check_filled(counts: Mapping[str, int], when: str) -> None:
    for name, count in counts.items():
        if count == 0:
            keys = "data.validation_fraction and data.test_fraction" if name == "train" else f"data.{name}_fraction"
            raise InputError(f"too few images: the {name} split is empty, {when}; add images, or change {keys}")
