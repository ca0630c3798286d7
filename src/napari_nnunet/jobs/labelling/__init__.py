"""Labels and where they are wrong.

Jobs that hold the labels of a dataset against what its models see.
"""
