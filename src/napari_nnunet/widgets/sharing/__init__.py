"""The Models dock: models are opened, installed, fetched from a catalogue, exported and carried elsewhere."""
