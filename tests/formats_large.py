"""OME-Zarr images for tests, and the command that segments them."""

import sys


def axis(name, unit="micrometer"):
    kind = {"t": "time", "c": "channel"}.get(name, "space")
    return {"name": name, "type": kind, **({"unit": unit} if kind == "space" and unit else {})}


def ome_zarr(path, levels, *, axes="zyx", scales=None, version="0.5", unit="micrometer", **more):
    """Write an OME-Zarr image of given levels."""
    import zarr

    group = zarr.open_group(str(path), mode="w", zarr_format=3 if version == "0.5" else 2)
    named = {"dimension_names": list(axes)} if version == "0.5" else {}
    datasets = []
    for number, level in enumerate(levels):
        array = group.create_array(
            str(number), shape=level.shape, chunks=tuple(min(n, 8) for n in level.shape), dtype=level.dtype, **named
        )
        array[...] = level
        scale = scales[number] if scales else [2.0**number] * level.ndim
        datasets.append({"path": str(number), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
    entry = {"axes": [axis(name, unit) for name in axes], "datasets": datasets, **more}
    if version == "0.5":
        group.attrs["ome"] = {"version": "0.5", "multiscales": [entry]}
    else:
        group.attrs["multiscales"] = [{**entry, "version": "0.4"}]
    return path


def command_words(model, image, target):
    """Return the words of a process that segments an image block by block, and goes on with what was begun."""
    words = [sys.executable, "-m", "napari_nnunet", "predict_image", "-m", str(model.folder), "-i", str(image)]
    words += ["-o", str(target), "--continue", "-device", "cpu", "--backend", "torch", "--precision", "float32"]
    return [*words, "--disable_tta", "--chunks", "8", "16", "16"]
