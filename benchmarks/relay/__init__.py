"""What relay mode costs and what it keeps, beside servers that hold their connections alone."""
