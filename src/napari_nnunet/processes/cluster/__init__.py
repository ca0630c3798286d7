"""Cases and blocks are worked on by other machines, through dask; trainings are queued there, through submitit."""
