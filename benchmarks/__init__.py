"""What measures and shows: the demonstration, the time to start."""
