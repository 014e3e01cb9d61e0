"""Many animations, on the cores and GPUs of one machine or of a Ray cluster: python -m realportrait_core.batch JOBS.csv --out DIR.

jobs (the CSV) -> run (what is left, progress, failures) -> pool (actors on Ray, for any kind of job) -> worker (one animation).
"""
