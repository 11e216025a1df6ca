"""What algorithms share; files in here are no algorithms."""
