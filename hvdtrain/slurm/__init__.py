"""A run as a job: of Slurm's, or of this machine's.

`options`, `launcher` and `script` make the batch script, whose constant part, body.sh, decides what comes after the end
of the workers; `other` makes those of jobs beside training. `submit` hands one in, `client` talks to Slurm and `local`
stands in for it. `record` is what a run directory knows of its jobs, `jobs` what has become of them, `output` what they
print, `text` how they are told.
"""
