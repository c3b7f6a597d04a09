"""chansup runs a whole real-time Python web deployment from one TOML file."""

__version__ = "0.1.0"
