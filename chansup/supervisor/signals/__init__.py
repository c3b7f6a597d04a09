"""What reaches the supervisor from outside: signals, and the end of its terminal."""
