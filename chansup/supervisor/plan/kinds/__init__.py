"""What a pool of each kind runs, made from its table of the config."""
