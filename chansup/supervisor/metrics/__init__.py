"""What is counted, in the format of Prometheus."""
