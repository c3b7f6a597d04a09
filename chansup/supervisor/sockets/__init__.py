"""Everything that listens: for clients, for app workers, for the hub; and what systemd passes."""
