"""From few labels to a model that can be trusted: six figures, with small networks.

    python benchmarks/guidance.py --data DATA --workspace DIR [--only scribbles next labels quality classes partial]
        [--steps 300] [--seeds 0] [--cases 60] [--minutes 25] [--trainer nnUNetTrainerAdam1en3]

DATA holds ``data/Dataset004_Hippocampus`` and ``data/heart`` (60 volumes of 30 patients, with full labels and
scribbles). Networks are those of SmallPlanner; ``--steps`` is how long each training lasts. So short a training learns
with Adam (nnU-Net's default, SGD, still finds nothing in hippocampus after 200 steps). Each piece prints a line or a
table; pieces that would begin after ``--minutes`` are left out, and it says so. What is prepared stays in DIR.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk

import napari_nnunet as nnunet
from napari_nnunet.engine.choosing.expected import expected_dice
from napari_nnunet.engine.choosing.metrics import measure_labels
from napari_nnunet.engine.labelling.explain import displaced
from napari_nnunet.engine.labelling.queries import boxes_in, choose_places, entropy_of, places_of
from napari_nnunet.engine.prediction.looks import DEGRADED, CaseLook, degrade
from napari_nnunet.engine.prediction.quality import QualityModel
from napari_nnunet.formats.images.files import read_volume
from napari_nnunet.jobs.prediction.quality import QUALITY_FILE
from napari_nnunet.volume import Volume

PLANS = "nnUNetSmallPlans"
PER_EPOCH = 25
NAMES = {"heart": ["background", "right ventricle", "myocardium", "left ventricle"], "hippocampus": ["background", "anterior", "posterior"]}  # fmt: skip
TINY_MEMORY = 0.03  # GB that the planner may plan for
TINY_SPACING = {"2d": (10.0, 3.0, 3.0), "3d_fullres": (1.5, 1.5, 1.5)}  # mm, twice and one and a half times the data's
TINY_2D = {"patch_size": [64, 64], "batch_size": 8}  # the heart fills more of it than of a whole slice
CONFIGURATION = {"heart": "2d", "hippocampus": "3d_fullres"}


def read(path):
    """Return labels as they are stored, and their grid."""
    image = sitk.ReadImage(str(path))
    return sitk.GetArrayFromImage(image), image


def write(path, array, like):
    image = sitk.GetImageFromArray(array)
    image.CopyInformation(like)
    sitk.WriteImage(image, str(path))


class Data:
    """The cases of one of the two datasets: name to image and label file."""

    def __init__(self, root, what):
        self.what = what
        if what == "heart":
            self.images = {p.name[:-7]: p for p in sorted((root / "data/heart/images").glob("*.nii.gz"))}
            self.labels = {name: root / "data/heart/labels" / p.name for name, p in self.images.items()}
            self.scribbles = {name: root / "data/heart/scribbles" / p.name for name, p in self.images.items()}
        else:
            raw = root / "data/Dataset004_Hippocampus"
            self.labels = {p.name[:-7]: p for p in sorted((raw / "labelsTr").glob("*.nii.gz"))}
            self.images = {name: raw / "imagesTr" / f"{name}_0000.nii.gz" for name in self.labels}

    def parts(self, train, held):
        """Return names to train on and to hold out, drawn at random; the two phases of a heart stay together.

        In their order, hearts come by disease: the first twenty patients have another one than the next.
        """
        groups = {}
        for name in sorted(self.labels):
            groups.setdefault(name.split("_")[0] if self.what == "heart" else name, []).append(name)
        names = [name for i in np.random.default_rng(0).permutation(len(groups)) for name in list(groups.values())[i]]
        return names[:train], names[-held:]


class Bench:
    """A workspace in which datasets are made, trained on and predicted with."""

    def __init__(self, options):
        self.options, self.home = options, options.workspace

    def dataset(self, number, data, labels, classes, **more):
        """Write a raw dataset: ``labels`` maps names to arrays, or to files that are copied; returns its name."""
        name = f"Dataset{number:03d}_{data.what.capitalize()}"
        raw = self.home / "nnUNet_raw" / name
        for place in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            shutil.rmtree(self.home / place / name, ignore_errors=True)
        for part in ("imagesTr", "labelsTr"):
            (raw / part).mkdir(parents=True)
        for case, drawn in labels.items():
            shutil.copy(data.images[case], raw / "imagesTr" / f"{case}_0000.nii.gz")
            target = raw / "labelsTr" / f"{case}.nii.gz"
            if isinstance(drawn, Path):
                shutil.copy(drawn, target)
            else:
                write(target, drawn.astype(np.uint8), sitk.ReadImage(str(data.labels[case])))
        content = {
            "channel_names": {"0": "MR"},
            "labels": classes,
            "numTraining": len(labels),
            "file_ending": ".nii.gz",
            **more,
        }
        (raw / "dataset.json").write_text(json.dumps(content))
        return name

    def plan(self, name, configuration):
        more = {"group_by": "^(patient[0-9]+)"} if configuration == "2d" else {}  # two phases of each heart
        if self.options.tiny:
            more |= {"gpu_memory_gb": TINY_MEMORY, "target_spacing": TINY_SPACING[configuration]}
        nnunet.plan_and_preprocess(
            name, workspace=self.home, planner="SmallPlanner", configurations=[configuration], workers=1, **more
        )
        if self.options.tiny and configuration == "2d":
            path = self.home / "nnUNet_preprocessed" / name / f"{PLANS}.json"
            plans = json.loads(path.read_text())
            plans["configurations"]["2d"] |= TINY_2D
            path.write_text(json.dumps(plans))

    def train(self, name, configuration, fold, steps, seed, **changes):
        changes = {"plans": PLANS, "trainer": self.options.trainer, **changes}
        if self.options.tiny:  # one thread, and batches made in between: nothing waits for a busy computer
            changes = {"threads": 1, "workers": 0, "precision": "float32", **changes}
        return nnunet.train(
            name, configuration, fold, workspace=self.home, epochs=max(2, steps // PER_EPOCH), iterations=PER_EPOCH,
            validation_iterations=1, seed=seed, **{"workers": 1, **changes},
        )  # fmt: skip

    def folder(self, name, configuration, plans=PLANS):
        return self.home / "nnUNet_results" / name / f"{self.options.trainer}__{plans}__{configuration}"

    def model(self, name, configuration, plans=PLANS):
        return nnunet.load_model(self.folder(name, configuration, plans))

    def dice(self, model, data, names, classes, **settings):
        """Return the mean Dice of the classes on cases that nobody trained on."""
        settings = {"threads": 1 if self.options.tiny else 0, **settings}
        found = []
        for name in names:
            truth, _ = read(data.labels[name])
            volume = read_volume((data.images[name],))
            labels = nnunet.predict(model, volume, mirroring=False, **settings).labels
            metrics = measure_labels(truth, labels, classes, None)
            found.append(np.nanmean([metrics[value]["Dice"] for value in classes]))
        return float(np.mean(found))


def classes_of(what, count=None, *, ignore=False):
    names = NAMES[what][:count]
    classes = {name: value for value, name in enumerate(names)}
    return {**classes, "ignore": len(names)} if ignore else classes


def scribbles(bench, data_of):
    """Heart, trained on full labels, on scribbles, and with --scribbles, for as many steps; 20 volumes of others."""
    data = data_of("heart")
    train, held = data.parts(40, 20)
    for seed in bench.options.seeds:
        dice = {}
        for number, how, source in ((901, "full labels", data.labels), (902, "scribbles", data.scribbles)):
            name = bench.dataset(
                number, data, {case: source[case] for case in train}, classes_of("heart", ignore=how == "scribbles")
            )
            bench.plan(name, "2d")
            for told in (False, True)[: 1 + (how == "scribbles")]:
                bench.train(name, "2d", "all", bench.options.steps, seed, validation=False, scribbles=told)
                dice[how + ", said to be that" * told] = bench.dice(bench.model(name, "2d"), data, held, (1, 2, 3))
        full = dice["full labels"]
        told = " | ".join(f"{how}: {value:.3f}, {value / full:.1%}" for how, value in dice.items())
        print(f"| heart, seed {seed} | {told} |", flush=True)


def next_labels(bench, data_of):
    """Hippocampus: start with 4 cases, five rounds of slices; annotated voxels until 95 % of the full Dice."""
    data = data_of("hippocampus")
    train, held = data.parts(bench.options.cases, 30)
    truth = {name: read(data.labels[name])[0] for name in train}
    classes = (1, 2)
    for seed in bench.options.seeds:
        name = bench.dataset(903, data, {case: data.labels[case] for case in train}, classes_of("hippocampus"))
        bench.plan(name, "3d_fullres")
        bench.train(name, "3d_fullres", "all", bench.options.steps, seed, validation=False)
        full = bench.dice(bench.model(name, "3d_fullres"), data, held, classes)
        print(f"full labels, seed {seed}: {full:.3f} with {sum(t.size for t in truth.values())} voxels", flush=True)
        for strategy in ("random", "entropy", "stratified"):
            reached = _rounds(bench, data, train, held, truth, strategy, seed, full)
            told = ", ".join(f"{voxels / 1000:.0f}k {dice:.3f}" for voxels, dice in reached)
            enough = next((voxels for voxels, dice in reached if dice >= 0.95 * full), None)
            print(f"| {strategy}, seed {seed} | {told} | {enough or 'not reached'} |", flush=True)


def _rounds(bench, data, train, held, truth, strategy, seed, full):
    """Label slices round by round where a strategy says; returns voxels and Dice after each training."""
    per_round, rng = 40, np.random.default_rng(seed)
    done = {name: np.ones(truth[name].shape, bool) for name in train[:4]}
    reached = []
    for turn in range(6):
        labels = {n: np.where(mask, truth[n], 3) for n, mask in done.items() if mask.any()}
        name = bench.dataset(904, data, labels, classes_of("hippocampus", ignore=True))
        bench.plan(name, "3d_fullres")
        bench.train(name, "3d_fullres", "all", bench.options.steps, seed, validation=False)
        model = bench.model(name, "3d_fullres")
        voxels = sum(int(mask.sum()) for mask in done.values())
        reached.append((voxels, bench.dice(model, data, held, (1, 2))))
        if turn == 5 or reached[-1][1] >= 0.95 * full:
            break
        places = []
        for case in train:
            result = nnunet.predict(model, read_volume((data.images[case],)), mirroring=False, probabilities=True)
            scheme, shape = model.dataset.labels, truth[case].shape
            places += places_of(
                case, entropy_of(iter(result.probabilities), scheme), result.labels, scheme,
                boxes_in(shape, "slices", (), 0), unit="slices", axis=0, annotated=done.get(case),
            )  # fmt: skip
        for place in choose_places(places, strategy, per_round, turn=turn + 1, rng=rng):
            mask = done.setdefault(place.case, np.zeros(truth[place.case].shape, bool))
            mask[tuple(slice(lo, hi) for lo, hi in place.box)] = True
    return reached


def spoiled(labels, way, other, rng):
    """Return labels with one of six faults."""
    if way == "swapped":
        return np.choose(labels, [0, 2, 1, *range(3, int(labels.max()) + 1)][: max(3, int(labels.max()) + 1)])
    if way == "shifted":
        axis = int(rng.integers(1, 3))
        return displaced(labels, [4 if a == axis else 0 for a in range(3)])
    if way == "eroded":
        from scipy.ndimage import binary_erosion

        inside = np.zeros(labels.shape, bool)
        for value in np.unique(labels[labels > 0]):
            structure = np.ones((1, 3, 3), bool)
            inside |= binary_erosion(labels == value, structure, iterations=2)
        return np.where(inside, labels, 0)
    if way == "deleted":
        return np.where(labels == labels.max(), 0, labels)
    if way == "another's":
        fitted = np.zeros_like(labels)
        part = tuple(slice(0, min(a, b)) for a, b in zip(labels.shape, other.shape, strict=True))
        fitted[part] = other[part]
        return fitted
    return labels[:, :, ::-1].copy()


WAYS = ("swapped", "shifted", "eroded", "deleted", "another's", "mirrored")


def wrong_labels(bench, data_of):
    """One case in twenty is spoiled, the network learns from them too; how many are at the top of the list."""
    for what in bench.options.what:
        data = data_of(what)
        names = sorted(data.labels)[: bench.options.cases if what == "hippocampus" else 60]
        for seed in bench.options.seeds:
            rng = np.random.default_rng(seed)
            count = max(6, round(0.05 * len(names)))
            bad = [str(n) for n in rng.choice(names, count, replace=False)]
            labels = {name: data.labels[name] for name in names}
            for i, name in enumerate(bad):
                other = read(data.labels[names[(names.index(name) + 1) % len(names)]])[0]
                labels[name] = spoiled(read(data.labels[name])[0], WAYS[i % 6], other, rng)
            name = bench.dataset(905 if what == "heart" else 906, data, labels, classes_of(what))
            configuration = CONFIGURATION[what]
            bench.plan(name, configuration)
            for fold in range(5):
                bench.train(name, configuration, fold, bench.options.steps, seed, probabilities=True)
            found = nnunet.find_label_errors(
                name, workspace=bench.home, trainer=bench.options.trainer, plans=PLANS, workers=1
            )
            top = [case.name for case in found.cases[: count + 2]]
            share = len(set(bad) & set(top)) / count
            print(
                f"| {what}, seed {seed} | {len(names)} | {count} | {share:.2f} of them among the first {count + 2} |",
                flush=True,
            )


def quality(bench, data_of):
    """Predicted against true Dice on volumes that nobody trained on.

    Correlation, mean absolute error and share within the 90 % interval: of what the probabilities expect, of the line
    fitted to that, and of the line with further signs.
    """
    for what in bench.options.what:
        data = data_of(what)
        train, held = data.parts(40, 20)
        for seed in bench.options.seeds:
            name = bench.dataset(
                907 if what == "heart" else 908, data, {n: data.labels[n] for n in train}, classes_of(what)
            )
            configuration = CONFIGURATION[what]
            bench.plan(name, configuration)
            for fold in (0, 1):
                bench.train(name, configuration, fold, bench.options.steps, seed)
            _judge(bench, bench.model(name, configuration), data, held, seed)


def unseen(array, rng):
    """Return an image (C, Z, Y, X) degraded in ways that no calibration tries: ghosts of motion, or a bias field."""
    if rng.random() < 0.5:
        return array + float(rng.uniform(0.2, 0.8)) * np.roll(array, int(array.shape[-2] * 0.2), axis=-2)
    ramps = np.meshgrid(*(np.linspace(-1, 1, n) for n in array.shape[1:]), indexing="ij")
    field = np.exp(sum(float(w) * ramp for w, ramp in zip(rng.uniform(-1.5, 1.5, 3), ramps, strict=True)))
    return (array - array.min()) * field.astype(np.float32)[None]


def _judge(bench, model, data, held, seed):
    """Print predicted against true Dice; the images as they are, degraded as in the calibration, and otherwise."""
    said = {"as they are": [], "degraded": [], "degraded in other ways": []}
    scheme = model.dataset.labels
    for i, case in enumerate(held):
        truth, _ = read(data.labels[case])
        volume = read_volume((data.images[case],))
        array = np.asarray(volume.array, dtype=np.float32)
        rng = np.random.default_rng(i)
        images = (array, degrade(array, DEGRADED[i % len(DEGRADED)], rng), unseen(array, rng))
        for rows, image in zip(said.values(), images, strict=True):
            result = nnunet.predict(
                model, Volume(image, volume.geometry), mirroring=False, quality=True, probabilities=True,
                threads=1 if bench.options.tiny else 0,
            )  # fmt: skip
            known = QualityModel.model_validate(json.loads((model.folder / QUALITY_FILE).read_text())["plain"]["model"])
            heads = (np.asarray(head) for head in result.probabilities)
            expected = {scheme.names[t]: v for t, v in expected_dice(heads, result.labels, scheme).items()}
            alone = known.judge(expected, CaseLook(figures={}, kinds={})).dice
            metrics = measure_labels(truth, result.labels, scheme.foreground_labels, None)
            for value in scheme.foreground_labels:
                name = scheme.names[value]
                if name in expected and not math.isnan(metrics[value]["Dice"]):
                    own = (metrics[value]["Dice"], bool(result.quality.unlike), expected[name])
                    rows.append((*own, *alone[name], *result.quality.dice[name]))
    (bench.home / f"quality_{data.what}_{seed}.json").write_text(json.dumps(said))
    said["all three"] = [row for rows in said.values() for row in rows]
    for how, rows in said.items():
        true, unlike, expected, *others = np.array(rows, dtype=float).T
        told = [_compared(true, expected), *(_compared(true, *others[n : n + 3]) for n in (0, 3))]
        print(
            f"| {data.what}, {how}, seed {seed} | {len(true)} | {true.mean():.2f} | {true.std():.3f} | "
            f"{' | '.join(told)} | {unlike.mean():.0%} |",
            flush=True,
        )


def _compared(true, middle, low=None, high=None):
    known = f"{np.corrcoef(middle, true)[0, 1]:.2f}, {np.abs(middle - true).mean():.3f}"
    return known if low is None else f"{known}, {((low <= true) & (true <= high)).mean():.0%}"


def more_classes(bench, data_of):
    """A class is added to a trained model; a quarter of the steps against training from nothing."""
    data = data_of("hippocampus")
    train, held = data.parts(bench.options.cases, 30)
    for seed in bench.options.seeds:
        one = {n: np.where(read(data.labels[n])[0] == 1, 1, 0) for n in train}
        name = bench.dataset(909, data, one, classes_of("hippocampus", 2))
        bench.plan(name, "3d_fullres")
        bench.train(name, "3d_fullres", "all", bench.options.steps, seed, validation=False)
        both = bench.dataset(910, data, {n: data.labels[n] for n in train}, classes_of("hippocampus"))
        bench.plan(both, "3d_fullres")
        bench.train(both, "3d_fullres", "all", bench.options.steps, seed, validation=False)
        nothing = bench.dice(bench.model(both, "3d_fullres"), data, held, (1, 2))
        quarter = max(2 * PER_EPOCH, bench.options.steps // 4)
        old = bench.folder(name, "3d_fullres")
        bench.train(both, "3d_fullres", "all", quarter, seed, plans="continued", continue_from=old, validation=False)
        gone_on = bench.dice(bench.model(both, "3d_fullres", "continued"), data, held, (1, 2))
        print(
            f"| one class added, seed {seed} | {nothing:.3f} | {gone_on:.3f} | {gone_on / max(nothing, 1e-6):.1%} |",
            flush=True,
        )


def partial_labels(bench, data_of):
    """Every class is drawn in a part of the cases only; the others are unknown there, or taken for background."""
    for what in bench.options.what:
        data, configuration = data_of(what), CONFIGURATION[what]
        train, held = data.parts(min(40, bench.options.cases), 20)
        classes = classes_of(what)
        values = tuple(value for value in classes.values() if value)
        only = {case: values[i % len(values)] for i, case in enumerate(train)}
        drawn = {case: np.where((a := read(data.labels[case])[0]) == value, a, 0) for case, value in only.items()}
        said = {case: [NAMES[what][value]] for case, value in only.items()}
        ways = {
            "every class in every case": ({case: data.labels[case] for case in train}, {}),
            "one class a case, the others unknown": (drawn, {"napari_nnunet_annotated": said}),
            "one class a case, the others background": (drawn, {}),
        }
        for seed in bench.options.seeds:
            dice = {}
            for number, (how, (labels, more)) in enumerate(ways.items(), start=911):
                name = bench.dataset(number, data, labels, classes, **more)
                bench.plan(name, configuration)
                bench.train(name, configuration, "all", bench.options.steps, seed, validation=False)
                dice[how] = bench.dice(bench.model(name, configuration), data, held, values)
            told = " | ".join(f"{how}: {value:.3f}" for how, value in dice.items())
            print(f"| {what}, seed {seed} | {told} |", flush=True)


PIECES = {
    "partial": partial_labels,
    "scribbles": scribbles,
    "next": next_labels,
    "labels": wrong_labels,
    "quality": quality,
    "classes": more_classes,
}


def main() -> None:
    """Run the pieces that were asked for, as long as there is time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=PIECES, default=list(PIECES))
    parser.add_argument(
        "--what", nargs="+", choices=NAMES, default=["hippocampus", "heart"], help="of labels, quality and partial"
    )
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--cases", type=int, default=60, help="of hippocampus")
    parser.add_argument("--trainer", default="nnUNetTrainerAdam1en3")
    parser.add_argument("--tiny", action="store_true", help="coarser voxels and smaller patches, on one thread")
    parser.add_argument("--minutes", type=float, default=math.inf)
    options = parser.parse_args()
    options.workspace = options.workspace.resolve()
    bench, begun = Bench(options), time.monotonic()
    for piece in options.only:
        if time.monotonic() - begun > 60 * options.minutes:
            print(f"{piece} is left out: {options.minutes:g} minutes are over.")
            continue
        since = time.monotonic()
        print(f"\n{piece}: {PIECES[piece].__doc__}", flush=True)
        PIECES[piece](bench, lambda what: Data(options.data, what))
        print(f"({time.monotonic() - since:.0f} s, {options.steps} steps)", flush=True)


if __name__ == "__main__":
    main()
