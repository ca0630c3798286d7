"""Use cases: the loops that wire formats to the engine and yield events."""
