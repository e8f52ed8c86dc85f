"""The command line. Torch and Hydra are imported by the command that needs them, not before."""
