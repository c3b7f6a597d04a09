"""What processes print, on its way to stdout and to `chansup logs`."""
