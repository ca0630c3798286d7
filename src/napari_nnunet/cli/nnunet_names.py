"""nnU-Net v2's command line next to ours: other spellings, and flags that are accepted but not needed."""

from __future__ import annotations

ALIASES: dict[str, tuple[str, ...]] = {
    "convert_MSD_dataset": ("convert_msd_dataset",),
    "convert_old_nnUNet_dataset": ("convert_old_nnunet_dataset",),
}

#: Flags that nnU-Net's users type and that have no meaning here: prediction needs no worker processes, and there is
#: one way to measure a dataset.
UNUSED: dict[str, tuple[str, ...]] = {
    "predict": ("-npp", "-nps"),
    "predict_from_modelfolder": ("-npp", "-nps"),
    "plan_and_preprocess": ("-fpe",),
    "extract_fingerprint": ("-fpe",),
}
