"""Work on other machines: cases and blocks through dask, trainings through submitit."""
