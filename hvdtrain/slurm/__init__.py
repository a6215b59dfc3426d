"""A run as a job: of Slurm's, or of this machine's.

`options` and `script` make the batch script, `body.sh` is its constant part and decides what comes after the workers' end;
`client` talks to Slurm and `local` stands in for it; `record` is what a run directory knows of its jobs, `jobs` what has
become of them, `output` what they print.
"""
