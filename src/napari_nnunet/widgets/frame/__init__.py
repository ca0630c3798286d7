"""What all docks share: forms, run panel, job worker, layers, words."""
