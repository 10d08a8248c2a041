"""The command line of training: LightningCLI, the run's folder, and errors in one line."""
