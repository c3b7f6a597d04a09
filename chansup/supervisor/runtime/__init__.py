"""The runtime directory, the claim on it, and how commands find it."""
