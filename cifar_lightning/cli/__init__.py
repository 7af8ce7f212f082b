"""The command line: LightningCLI, what it starts from, and how errors are reported."""
