"""Datasets in, and a look at them: conversions, folders of images and masks, dataset.json, overlays."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from napari_nnunet.cli._plan import add_output, run_shown
from napari_nnunet.cli._predict import Verbs
from napari_nnunet.errors import SettingsError

if TYPE_CHECKING:
    from napari_nnunet.formats.workspace import Workspace


def add_verbs(verbs: Verbs) -> None:
    """Add the verbs."""
    _add_folders(verbs)
    _add_converters(verbs)
    _add_json(verbs)
    _add_overlays(verbs)


def _add_folders(verbs: Verbs) -> None:
    parser = verbs.add_parser(
        "import_folders",
        help="make a dataset of a folder of images and a folder of masks",
        description="Match images and masks by their names, write them as a dataset. --dry_run shows the pairs.",
        allow_abbrev=False,
    )
    parser.add_argument("-i", type=Path, required=True, metavar="DIR", help="images: files, or DICOM series as folders")
    parser.add_argument("-m", type=Path, required=True, metavar="DIR", help="masks, named like the images")
    parser.add_argument("-n", metavar="NAME", help="of the dataset; the next free number is put in front")
    parser.add_argument("--channels", nargs="+", default=[], metavar="NAME", help="names of the channels, in order")
    parser.add_argument(
        "--suffixes",
        nargs="+",
        default=[],
        metavar="END",
        help="what the names of channel files end in (_red _green; written --suffixes=_red for one that begins with -)",
    )
    parser.add_argument("--classes", nargs="+", default=[], metavar="VALUE=NAME", help="names of mask values: 255=cell")
    parser.add_argument("--ignore", type=int, metavar="VALUE", help="mask value of voxels that nobody annotated")
    parser.add_argument("--dry_run", action="store_true", help="show the pairs and write nothing")
    parser.add_argument("-np", type=int, default=0, metavar="N", help="cases at the same time (default: all cores)")
    add_output(parser)
    parser.set_defaults(run=_import)


def _add_converters(verbs: Verbs) -> None:
    msd = verbs.add_parser(
        "convert_MSD_dataset",
        aliases=["convert_msd_dataset"],
        help="convert a task of the Medical Segmentation Decathlon",
        description="Convert a task of the Medical Segmentation Decathlon (TaskNN_Name).",
        allow_abbrev=False,
    )
    msd.add_argument("-i", type=Path, required=True, metavar="DIR", help="the task's folder")
    msd.add_argument("-overwrite_id", type=int, metavar="N", help="dataset number (default: the task's)")
    msd.add_argument("-np", type=int, default=0, metavar="N", help="files at the same time (default: all cores)")
    add_output(msd)
    msd.set_defaults(run=_convert_msd)
    old = verbs.add_parser(
        "convert_old_nnUNet_dataset",
        aliases=["convert_old_nnunet_dataset"],
        help="convert a dataset of nnU-Net v1",
        description="Convert a dataset of nnU-Net v1 (a task folder).",
        allow_abbrev=False,
    )
    old.add_argument("input_folder", type=Path, help="the old task's folder")
    old.add_argument("output_dataset_name", help="DatasetXXX_Name")
    add_output(old)
    old.set_defaults(run=_convert_old)


def _add_json(verbs: Verbs) -> None:
    parser = verbs.add_parser(
        "generate_dataset_json",
        help="write the dataset.json of a folder with imagesTr and labelsTr",
        description="Write the dataset.json of a raw dataset; the training cases are counted.",
        allow_abbrev=False,
    )
    parser.add_argument("folder", type=Path, help="DatasetXXX_Name")
    parser.add_argument("--channels", nargs="+", required=True, metavar="NAME", help="in order; CT selects CT rules")
    parser.add_argument(
        "--labels",
        nargs="+",
        required=True,
        metavar="NAME=VALUE",
        help="liver=1 tumour=2, regions as whole=1,2; background=0 is added",
    )
    parser.add_argument("--regions_class_order", nargs="+", type=int, metavar="VALUE", help="needed with regions")
    parser.add_argument("--file_ending", required=True, metavar="END", help=".nii.gz, .png, .tif, ...")
    parser.set_defaults(run=_json)


def _add_overlays(verbs: Verbs) -> None:
    parser = verbs.add_parser(
        "plot_overlay_pngs",
        help="draw a picture of every training case with its labels",
        description="Draw the most telling slice of every training case with its labels in colour.",
        allow_abbrev=False,
    )
    parser.add_argument("-d", required=True, metavar="DATASET", help="dataset number or name")
    parser.add_argument("-o", type=Path, required=True, metavar="DIR", help="folder for the pictures")
    parser.add_argument("-np", type=int, default=0, metavar="N", help="cases at the same time (default: all cores)")
    parser.add_argument("-channel_idx", type=int, default=0, metavar="N", help="channel shown (default: %(default)s)")
    parser.add_argument("--use_raw", action="store_true", help="show raw instead of preprocessed images")
    parser.add_argument("-p", default="nnUNetPlans", metavar="PLANS", help="(default: %(default)s)")
    parser.add_argument("-c", metavar="CONFIGURATION", help="default: 3d_fullres if there is one, else 2d")
    parser.add_argument(
        "-overlay_intensity", type=float, default=0.6, metavar="X", help="0 to 1 (default: %(default)s)"
    )
    add_output(parser)
    parser.set_defaults(run=_overlays)


def _workspace(options: argparse.Namespace) -> Workspace:
    from napari_nnunet.formats.workspace import Workspace

    return Workspace.resolve(options.workspace, os.environ)


def _import(options: argparse.Namespace) -> int:
    from napari_nnunet.formats.dataset.pairs import pair_folders
    from napari_nnunet.jobs.dataset.import_folders import ImportSettings, import_folders

    if options.dry_run:
        pairing = pair_folders(options.i, options.m, suffixes=options.suffixes)
        for pair in pairing.pairs:
            print(f"{pair.name}: {' + '.join(path.name for path in pair.images)}  <->  {pair.mask.name}")
        for path in (*pairing.images, *pairing.masks):
            print(f"without a partner: {path}")
        return 0
    if not options.n:
        raise SettingsError("Give the dataset a name (-n NAME), or look at the pairs first (--dry_run).")
    settings = ImportSettings(
        images=options.i,
        masks=options.m,
        name=options.n,
        suffixes=tuple(options.suffixes),
        channel_names=tuple(options.channels),
        class_names={int(value): name for value, name in (_split(word, "--classes") for word in options.classes)},
        ignore=options.ignore,
    )
    print(run_shown(import_folders(_workspace(options), settings, workers=options.np), options))
    return 0


def _split(word: str, flag: str) -> tuple[str, str]:
    left, sign, right = word.partition("=")
    number = left if flag == "--classes" else right
    if not sign or not left or not all(part.isdigit() for part in number.split(",")):
        example = "255=cell" if flag == "--classes" else "liver=1"
        raise SettingsError(f"{flag} {word!r} cannot be read; write it like {example}.")
    return left, right


def _convert_msd(options: argparse.Namespace) -> int:
    from napari_nnunet.jobs.dataset.convert import convert_msd

    source = Path(os.path.abspath(options.i))
    print(run_shown(convert_msd(_workspace(options), source, number=options.overwrite_id, workers=options.np), options))
    return 0


def _convert_old(options: argparse.Namespace) -> int:
    from napari_nnunet.jobs.dataset.convert import convert_old_nnunet

    job = convert_old_nnunet(_workspace(options), options.input_folder, options.output_dataset_name)
    print(run_shown(job, options))
    return 0


def _json(options: argparse.Namespace) -> int:
    from napari_nnunet.formats.dataset.raw_dataset import generate_dataset_json
    from napari_nnunet.formats.dataset.raw_writer import update_count

    labels: dict[str, int | list[int]] = {"background": 0}
    for name, text in (_split(word, "--labels") for word in options.labels):
        values = [int(value) for value in text.split(",")]
        labels[name] = values[0] if len(values) == 1 else values
    path = generate_dataset_json(
        options.folder,
        options.channels,
        labels,
        0,
        options.file_ending,
        regions_class_order=options.regions_class_order,
    )
    update_count(options.folder)
    print(path)
    return 0


def _overlays(options: argparse.Namespace) -> int:
    from napari_nnunet.jobs.dataset.overlays import plot_overlays

    workspace = _workspace(options)
    job = plot_overlays(
        workspace,
        workspace.dataset_name(options.d),
        options.o,
        raw=options.use_raw,
        plans_name=options.p,
        configuration=options.c,
        channel=options.channel_idx,
        intensity=options.overlay_intensity,
        workers=options.np,
    )
    return 0 if run_shown(job, options) else 1
