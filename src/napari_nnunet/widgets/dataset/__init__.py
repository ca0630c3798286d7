"""The Training cases dock: cases and classes, import of folders, problems that a check found, the trash."""
