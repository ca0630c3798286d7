"""The functions of the verbs, by room.

Each carries out one request and prints what came of it.
"""
