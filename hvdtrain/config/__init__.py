"""What the user asked for: typed, frozen, complete."""
