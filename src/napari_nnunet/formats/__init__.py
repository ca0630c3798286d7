"""The one place that knows paths and bytes."""
