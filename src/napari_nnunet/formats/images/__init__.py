"""Image files in and out: one module per library, and the table that chooses one."""
