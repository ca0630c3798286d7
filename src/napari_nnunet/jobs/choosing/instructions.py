"""How new images are segmented with the best: commands to copy."""

from __future__ import annotations

from dataclasses import replace

from napari_nnunet.formats.model.folder import load_model
from napari_nnunet.formats.results.inference_information import Best
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.schema.model_name import ModelName
from napari_nnunet.schema.names import typed


def instructions(workspace: Workspace, best: Best) -> str:
    """Return the commands that segment new images with the best; every one of them runs as it is written."""
    folds = " ".join(str(fold) for fold in best.folds)
    where = _flag("--workspace", workspace)
    lines = [
        f"The best for {best.dataset} is {' + '.join(model.folder for model in best.models)}",
        _how_good(best),
        "",
        "One command does everything (fill in INPUT_FOLDER and OUTPUT_FOLDER):",
        "",
        f"napari-nnunet predict_best -d {typed(best.dataset)} -i INPUT_FOLDER -o OUTPUT_FOLDER{where}",
        "",
        "The same step by step; nnU-Net's own commands begin with nnUNetv2_ instead of 'napari-nnunet ' and have no "
        "--workspace:",
        "",
    ]
    several = len(best.models) > 1
    outputs = []
    for i, model in enumerate(best.models, start=1):
        output = f"OUTPUT_FOLDER_MODEL_{i}" if several else "OUTPUT_FOLDER"
        outputs.append(output)
        lines += _predict_lines(workspace, best, model, folds, output, where, probabilities=several)
    if several:
        lines.append(f"napari-nnunet ensemble -i {' '.join(outputs)} -o OUTPUT_FOLDER")
    if best.precision is None:
        lines += [
            "",
            "Postprocessing, once all cases are predicted:",
            "",
            f"napari-nnunet apply_postprocessing -i OUTPUT_FOLDER -o OUTPUT_FOLDER_PP -pp_pkl_file "
            f"{typed(best.postprocessing)} -plans_json {typed(best.plans_file)}",
        ]
    return "\n".join([*lines, ""])


def _how_good(best: Best) -> str:
    if best.precision is None:
        dice, cleaned = f"{best.dice:.4f}", f"{best.dice_cleaned:.4f}"
        return f"(mean foreground Dice {dice} in cross-validation, {cleaned} after postprocessing)."
    return (
        f"(mean average precision of its objects {best.precision:.4f} in cross-validation, at an IoU of 0.5 to 0.95; "
        f"mean Dice of cores and borders {best.dice:.4f})."
    )


def _flag(name: str, workspace: Workspace) -> str:
    """Return the flag that leads to the workspace; none where nnU-Net's variables or the user's folder do."""
    if workspace == Workspace.resolve(None):
        return ""
    return f" {name} {typed(workspace.results.parent)}"


def _predict_lines(
    workspace: Workspace, best: Best, model: ModelName, folds: str, output: str, where: str, *, probabilities: bool
) -> list[str]:
    """Return the commands for one model; a cascade's first stage comes before."""
    lines, more = [], ""
    previous = load_model(workspace.model(best.dataset, model)).configuration.previous_stage
    if previous is not None:
        lines.append(_predict_line(best, replace(model, configuration=previous), folds, f"{output}_FIRST", where))
        more = f" -prev_stage_predictions {output}_FIRST"
    more += " --save_probabilities" if probabilities else ""
    return [*lines, _predict_line(best, model, folds, output, where) + more]


def _predict_line(best: Best, model: ModelName, folds: str, output: str, where: str) -> str:
    return (
        f"napari-nnunet predict -d {typed(best.dataset)} -i INPUT_FOLDER -o {output} -f {folds} "
        f"-tr {typed(model.trainer)} -c {typed(model.configuration)} -p {typed(model.plans)}{where}"
    )
