"""The Ensemble and Compare docks."""
