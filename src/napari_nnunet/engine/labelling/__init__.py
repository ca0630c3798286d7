"""What a network says of labels that people drew.

Which of them it contradicts, how surely, and what went wrong there.
"""
