"""What is remembered beyond the process."""
