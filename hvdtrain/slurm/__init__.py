"""A run as a job: of Slurm's, or of this machine's.

`options`, `launcher` and `script` make the batch script, of which body.sh is the part that never changes and decides what
comes after the workers' end. `submit` hands it in, `client` talks to Slurm and `local` stands in for it. `record` is what
a run directory knows of its jobs, `jobs` what has become of them, `output` what they print, `text` how they are told.
"""
