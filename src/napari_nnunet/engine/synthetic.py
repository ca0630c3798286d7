"""A small synthetic microscope: volumes with known truth, made on the fly from a seed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

SPACING_UM = (1.0, 0.5, 0.5)  # thick slices, as a confocal microscope gives them
CLASSES = ("background", "nucleus", "shell")


def make_volume(seed: int, shape: tuple[int, int, int] = (32, 96, 96)) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return an image and its labels: solid nuclei (1) and hollow shells (2) in uneven light and noise.

    Both are equally bright, so that intensity alone does not tell them apart.

    Parameters
    ----------
    seed : int
        The same seed gives the same volume.
    shape : tuple of int
        (Z, Y, X) voxels of 1 x 0.5 x 0.5 micrometres.

    Returns
    -------
    image : ndarray of float32, shape ``shape``
        Counts of a detector.
    labels : ndarray of uint8, shape ``shape``
        0 background, 1 nucleus, 2 shell.
    """
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, dtype=np.uint8)
    physical = np.array(shape) * SPACING_UM
    count = max(4, round(float(np.prod(physical)) / 4500))
    taken: list[tuple[NDArray[np.float64], float]] = []
    for i in range(count):
        radius = rng.uniform(4.0, 7.5)
        for _ in range(40):
            centre = rng.uniform(radius * 0.6, physical - radius * 0.6)
            if all(np.linalg.norm(centre - other) > radius + r + 1 for other, r in taken):
                taken.append((centre, radius))
                _paint(labels, centre, radius, 1 + i % 2, rng)
                break
    image = _photograph(labels, rng)
    return image, labels


def _paint(
    labels: NDArray[np.uint8], centre: NDArray[np.float64], radius: float, label: int, rng: np.random.Generator
) -> None:
    stretch = rng.uniform(0.85, 1.15, size=3)
    lo = np.maximum(((centre - 1.3 * radius) / SPACING_UM).astype(int), 0)
    hi = np.minimum(((centre + 1.3 * radius) / SPACING_UM).astype(int) + 2, labels.shape)
    grid = np.stack(np.meshgrid(*(np.arange(a, b) for a, b in zip(lo, hi, strict=True)), indexing="ij"), axis=-1)
    distance = np.linalg.norm((grid * SPACING_UM - centre) / stretch, axis=-1)
    inside = distance <= radius
    if label == 2:
        inside &= distance > radius - 1.8
    labels[tuple(slice(a, b) for a, b in zip(lo, hi, strict=True))][inside] = label


def _photograph(labels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
    light = ndimage.gaussian_filter(rng.normal(size=labels.shape), (8, 24, 24), mode="reflect")
    light = 1 + 0.35 * light / max(float(np.abs(light).max()), 1e-6)
    sharp = 20 + 80 * (labels > 0) * light
    blurred = ndimage.gaussian_filter(sharp, (0.5, 0.9, 0.9))
    noisy = rng.poisson(np.clip(blurred, 0, None)) + rng.normal(scale=6, size=labels.shape)
    return np.clip(noisy, 0, None).astype(np.float32)


def make_crowd(seed: int, shape: tuple[int, ...] = (144, 144)) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
    """Return an image and its objects: ellipses or ellipsoids in clusters, many of which touch.

    Parameters
    ----------
    seed : int
        The same seed gives the same picture.
    shape : tuple of int
        ([Z,] Y, X).

    Returns
    -------
    image : ndarray of float32, shape ``shape``
        Counts of a detector.
    objects : ndarray of uint16, shape ``shape``
        Every object has its own number, 0 elsewhere.
    """
    rng = np.random.default_rng(seed)
    objects = np.zeros(shape, dtype=np.uint16)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).astype(np.float32)
    brightness = np.zeros(shape, dtype=np.float32)
    centres: list[NDArray[np.float64]] = []
    for _ in range(round(np.prod(shape) / 500)):
        radii = rng.uniform(5, 9, size=len(shape))
        centre = rng.uniform(0, shape)
        if centres and rng.random() < 0.6:  # beside another one
            away = rng.normal(size=len(shape))
            centre = centres[rng.integers(len(centres))] + away / np.linalg.norm(away) * rng.uniform(12, 15)
        turn = np.linalg.qr(rng.normal(size=(len(shape),) * 2))[0]
        inside = np.linalg.norm(((grid - centre) @ turn) / radii, axis=-1) <= 1
        free = inside & (objects == 0)
        if inside.sum() < 60 or free.sum() < 0.9 * inside.sum():
            continue
        centres.append(centre)
        objects[free] = len(centres)
        brightness[free] = rng.uniform(0.7, 1.3)
    sharp = 20 + 80 * brightness * (1 - 0.25 * (ndimage.grey_dilation(objects, 3) != objects))
    blurred = ndimage.gaussian_filter(sharp, 1.0)
    noisy = rng.poisson(blurred) + rng.normal(scale=5, size=shape)
    return np.clip(noisy, 0, None).astype(np.float32), objects
