"""Preprocessed training cases: b2nd arrays, their chunks, and the journal of what is finished."""
