"""The Next dock: what to label next, opened with a proposal, corrected, taken."""
