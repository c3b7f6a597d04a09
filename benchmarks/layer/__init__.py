"""What channel layers take, and how much they carry."""
