"""Files that ship with the package: icon, sample model, the pages behind "?", and the program of a carried model."""
