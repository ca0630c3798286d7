"""The Plan dock: how a dataset was measured, what the network will be, what is preprocessed, changes by hand."""
