"""The command `chansup`: what it takes, whom it asks, and how it shows what it hears."""
