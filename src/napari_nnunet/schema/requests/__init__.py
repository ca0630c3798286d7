"""What is asked of the jobs: one frozen request each, from which flags, keywords, forms and docs are made."""
