"""``python -m napari_nnunet``: the command line."""

from napari_nnunet.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
