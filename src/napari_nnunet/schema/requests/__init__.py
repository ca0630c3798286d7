"""What is asked of the jobs: one frozen request each.

Flags, ``--help``, the arguments of detached processes, Python keywords, form rows and docs/cli.md are made of them.
"""
