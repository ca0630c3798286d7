"""The Training cases dock and its dialogs."""
