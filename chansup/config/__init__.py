"""What may stand in chansup.toml: the schema, how it is loaded, and every error it can have."""
