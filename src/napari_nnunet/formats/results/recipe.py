"""recipe.json beside results: where they come from, and how to say so as a command, as Python or in a paper."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_nnunet.errors import DatasetError
from napari_nnunet.formats.atomic import write_json
from napari_nnunet.schema.cleaning import Target, target_word
from napari_nnunet.schema.json_text import message, read_object
from napari_nnunet.schema.names import typed

_NAME = "recipe.json"
_AXES = ("first", "second", "third")
Recipe = Mapping[str, Any]


def write_recipe(folder: Path, recipe: Recipe) -> None:
    """Write recipe.json into a folder of segmentations, unless the same is there."""
    path = folder / _NAME
    content = json.loads(json.dumps(recipe))
    if message(path) != content:
        write_json(path, content)


def read_recipe(folder: Path) -> dict[str, Any]:
    """Return the recipe of a folder of segmentations.

    Raises
    ------
    DatasetError
        If there is none, or the file holds something else.
    """
    path = folder if folder.is_file() else folder / _NAME
    if not path.exists():
        raise DatasetError(f"{folder} has no {_NAME}: it holds no napari-nnunet results.")
    content = read_object(path, DatasetError)
    try:
        if not _members(content):
            raise ValueError("it names no model")
        for say in STYLES.values():  # so that whoever asks for one of them meets no value that is none
            say(content)
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise DatasetError(f"{path} is not a recipe ({error}).") from error
    return content


def join_recipes(folders: Sequence[Path], method: str, weights: Sequence[float] | None) -> dict[str, Any] | None:
    """Return the recipe of an ensemble of folders, None if one of them has none."""
    try:
        recipes = [read_recipe(folder) for folder in folders]
    except DatasetError:
        return None
    members = [member for recipe in recipes for member in _members(recipe)]
    if len(members) != len(folders):
        return None  # ensembles of ensembles have no single line of commands
    return {
        "model": " + ".join(str(member.get("configuration")) for member in members),
        "folder": str(members[0]["folder"]),
        "members": [{key: value for key, value in member.items() if key != "versions"} for member in members],
        "method": method,
        "weights": None if weights is None else list(weights),
        "device": members[0].get("device"),
        "versions": recipes[0].get("versions"),
    }


def _members(recipe: Recipe) -> list[Recipe]:
    members = recipe.get("members")
    if isinstance(members, Sequence):
        return [member for member in members if isinstance(member, Mapping)]
    return [recipe] if "folder" in recipe else []


def as_command(recipe: Recipe, *, source: str = "INPUT_FOLDER", target: str = "OUTPUT_FOLDER") -> str:
    """Return the commands that do the same to a folder of images, one per line."""
    members = _members(recipe)
    several = len(members) > 1
    lines = [f"# {remark}" for remark in _remarks(recipe, source)]
    outputs = [f"{target}_{i}" if several else target for i in range(1, len(members) + 1)]
    steps = recipe.get("postprocessing") or []
    for member, output in zip(members, outputs, strict=True):
        words = ["napari-nnunet", "predict_from_modelfolder", "-i", source, "-o", output, "-m", str(member["folder"])]
        words += ["-f", *map(str, member.get("folds", [])), "-chk", str(member.get("checkpoint"))]
        words += ["-step_size", repr(float(member.get("step", 0.5)))]
        words += [] if member.get("mirror_axes") else ["--disable_tta"]
        words += ["--backend", str(member.get("backend")), "--precision", str(member.get("precision"))]
        asked = {**recipe, **member}
        for name in ("region", "spacing"):
            words += [f"--{name}", *map(str, asked[name])] if asked.get(name) else []
        words += ["--any_spacing"] if asked.get("any_spacing") else []
        words += ["--save_probabilities"] if several or recipe.get("probabilities") else []
        lines.append(typed(*words))
    if several:
        words = ["napari-nnunet", "ensemble", "-i", *outputs, "-o", target]
        words += ["--hard"] if recipe.get("method") == "hard" else []
        words += ["--weights", *(repr(float(w)) for w in recipe["weights"])] if recipe.get("weights") else []
        lines.append(typed(*words))
    if steps:
        words = ["napari-nnunet", "apply_postprocessing", "-i", target, "-o", f"{target}_PP"]
        file = recipe.get("postprocessing_file")
        what = ["-pp_pkl_file", str(file)] if file else ["--keep_largest", *map(target_word, _targets(recipe))]
        lines.append(typed(*words, *what))
    return "\n".join(lines) + "\n"


def _targets(recipe: Recipe) -> list[Target]:
    """Return what postprocessing keeps the largest part of; JSON has made lists of tuples."""
    steps = recipe.get("postprocessing") or []
    return [step["labels_or_regions"] for step in steps]


def _files(recipe: Recipe) -> list[str]:
    """Return the names of the channel files of a case."""
    first = _members(recipe)[0]
    count = 1 if recipe.get("colours") else len(first.get("channels") or [""])
    return [f"CASE_{c:04d}{first.get('file_ending', '.nii.gz')}" for c in range(count)]


def _remarks(recipe: Recipe, source: str) -> list[str]:
    """Return what the commands do not say: which file is which channel, the time point, corrections; a line for each.

    Names of channels and layers come from other people: a second line would be a command, or Python.
    """
    channels = _members(recipe)[0].get("channels") or [""]
    layers = recipe.get("layers") or []
    remarks = []
    if recipe.get("colours"):
        remarks.append(f"{source}: {_files(recipe)[0]} is a picture in colours: {', '.join(map(str, channels))}")
    elif len(channels) > 1:
        named = [
            f"{file} is {channel}" + (f" ('{layers[i]}')" if i < len(layers) else "")
            for i, (file, channel) in enumerate(zip(_files(recipe), channels, strict=True))
        ]
        remarks.append(f"{source}: {', '.join(named)}")
    if recipe.get("time_points"):
        points = ", ".join(map(str, recipe["time_points"]))
        remarks.append(f"A file holds one time point; these were segmented, counted from 0: {points}")
    if recipe.get("corrected"):
        remarks.append("The labels were corrected by hand afterwards")
    return [" ".join(remark.split()) for remark in remarks]


def as_python(recipe: Recipe) -> str:
    """Return a piece of Python that does the same to one image."""
    members = _members(recipe)
    first = members[0]
    reader = f", reader={first['reader']!r}" if first.get("reader") else ""
    files = ", ".join(json.dumps(file) for file in _files(recipe))
    lines = [
        "from napari_nnunet import load_model, predict, read_volume",
        "",
        *(f"# {remark}" for remark in _remarks(recipe, "The image")),
        f"image = read_volume([{files}]{reader})",
    ]
    calls = []
    asked = {**recipe, **first}
    image = [f"spacing={tuple(asked['spacing'])!r}"] if asked.get("spacing") else []
    region = asked.get("region") or []
    image += [f"region={tuple(zip(region[::2], region[1::2], strict=True))!r}"] if region else []
    for i, member in enumerate(members):
        folds = tuple(int(f) if str(f).isdecimal() else str(f) for f in member.get("folds", []))
        lines.append(f"model_{i} = load_model({str(member['folder'])!r})")
        options = [f"folds={folds!r}", f"checkpoint={member.get('checkpoint')!r}", f"step={member.get('step', 0.5)!r}"]
        options += [f"mirroring={bool(member.get('mirror_axes'))!r}", f"precision={member.get('precision')!r}"]
        options += [f"backend={member['backend']!r}"] if member.get("backend") else []
        options += ["any_spacing=True"] if asked.get("any_spacing") else []
        calls.append((f"model_{i}", ", ".join(options)))
    if len(calls) == 1 and not recipe.get("postprocessing"):
        lines.append(f"result = predict({', '.join([calls[0][0], 'image', *image, calls[0][1]])})")
    else:
        lines[0] = "from napari_nnunet import PredictSettings, ensemble_predict, load_model, read_volume"
        lines.append("result = ensemble_predict(")
        lines.append("    [" + ", ".join(f"({name}, PredictSettings({options}))" for name, options in calls) + "],")
        lines.append(f"    {', '.join(['image', *image])},")
        lines.append(f"    method={recipe.get('method', 'soft')!r},")
        lines += [f"    weights={tuple(recipe['weights'])!r},"] if recipe.get("weights") else []
        targets = _targets(recipe)
        lines += [f"    keep_largest={targets!r},"] if targets else []
        lines.append(")")
    lines.append("labels = result.labels")
    return "\n".join(lines) + "\n"


def as_methods(recipe: Recipe) -> str:
    """Return a paragraph for the methods section of a paper."""
    members = _members(recipe)
    versions = recipe.get("versions") or {}
    used = ", ".join(f"{name} {version}" for name, version in versions.items())
    text = "Images were segmented with nnU-Net (Isensee et al., Nature Methods 18, 203-211, 2021)"
    text += f" as implemented in napari-nnunet ({used}). " if used else " as implemented in napari-nnunet. "
    text += " ".join(_member_text(member) for member in members)
    if len(members) > 1:
        how = (
            "The models' labels were combined by majority vote"
            if recipe.get("method") == "hard"
            else "The models' class probabilities were averaged"
        )
        weights = recipe.get("weights")
        text += f" {how}{f' with weights {weights}' if weights else ''}."
    kept = recipe.get("postprocessing_kept") or []
    text += f" Only {', then '.join(kept)} was kept (connected components)." if kept else ""
    asked = {**recipe, **members[0]}
    if asked.get("spacing"):
        text += f" Voxels were taken as {' x '.join(map(str, asked['spacing']))} mm."
    if asked.get("region"):
        text += " Only a region of the image was segmented; intensities were normalised by the whole image."
    text += " The result was corrected by hand." if recipe.get("corrected") else ""
    hashes = [f"{fold} {digest[:12]}" for member in members for fold, digest in (member.get("sha256") or {}).items()]
    return text + (f" SHA-256 of the weights: {', '.join(hashes)}." if hashes else "") + "\n"


def _member_text(member: Recipe) -> str:
    folds = [str(fold) for fold in member.get("folds", [])]
    axes = member.get("mirror_axes") or []
    what = "probabilities" if member.get("average") == "probabilities" else "logits"
    networks = f"the {what} of {len(folds)} networks (folds {', '.join(folds)})" if len(folds) > 1 else ""
    parts = [f"sliding windows overlapping by {round(100 * (1 - float(member.get('step', 0.5))))} %"]
    parts += ["Gaussian weighting"] if member.get("gaussian", True) else []
    parts += [f"mirroring along the {' and '.join(_AXES[a] for a in axes)} axis"] if axes else []
    return (
        f"The {member.get('configuration')} configuration of the model {member.get('model')} "
        f"({member.get('trainer')}, {member.get('plans')}) was applied with {', '.join(parts)}"
        + (f", averaging {networks}" if networks else "")
        + f", in {member.get('precision')} arithmetic."
    )


STYLES = {"command": as_command, "python": as_python, "methods": as_methods}
