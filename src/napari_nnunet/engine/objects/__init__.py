"""Objects, each with its own number: what a network learns of them, how they are found again, matched and measured."""
