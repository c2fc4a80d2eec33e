"""A map of the decoder directions: t-SNE (van der Maaten and Hinton 2008) of their cosines, from the first two principal axes."""

from pathlib import Path

import numpy as np

from playpen.tables import unfinished

AXES = 50
"""Principal axes that distances are taken in: what is left is noise, and 50 make neighbours cheap."""
PERPLEXITY = 30


def place_directions(directions: np.ndarray, seed: int) -> np.ndarray:
    """Return the places of directions [f, d] on the map: float64 [f, 2], each axis from 0 to 1.

    One thread, so that the sums, and with them the map, are the same in every run.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    if len(directions) < 2:
        return np.zeros((len(directions), 2))
    unit = directions / np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-12)
    with threadpool_limits(1):
        axes = PCA(min(AXES, *unit.shape), svd_solver="randomized", random_state=seed).fit_transform(unit)
        if len(unit) > 3 * PERPLEXITY:
            tsne = TSNE(2, perplexity=PERPLEXITY, init="pca", max_iter=500, random_state=seed)
            axes = tsne.fit_transform(axes)
    plane = np.pad(axes[:, :2].astype(np.float64), ((0, 0), (0, max(0, 2 - axes.shape[1]))))
    low, high = plane.min(0), plane.max(0)
    return (plane - low) / np.where(high > low, high - low, 1)


def draw_map(directions: np.ndarray, seed: int, file: Path) -> None:
    """Write the places of directions to a file, whole or not at all; for a process of its own, because t-SNE holds the GIL."""
    places = place_directions(directions, seed)
    part = unfinished(file)
    with part.open("wb") as handle:
        np.save(handle, places)
    part.replace(file)
