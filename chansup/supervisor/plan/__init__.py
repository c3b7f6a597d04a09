"""The plan: one snapshot of config, code and environment, and what each pool of it starts."""
