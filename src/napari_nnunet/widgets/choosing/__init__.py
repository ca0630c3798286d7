"""The Ensemble and Compare docks: members and their scores; two segmentations of a layer or folder."""
