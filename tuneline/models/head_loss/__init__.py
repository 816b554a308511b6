"""What training adds to the head's loss."""
