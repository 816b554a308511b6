"""What starts the training processes: DeepSpeed's launcher, torch's, or SLURM's srun; on this host or on several."""
