"""The Segment dock: one image or many, by which model and how; the result, its volumes, objects and quality."""
