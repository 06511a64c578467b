"""What a user may do: each action checks the role, commits, and only then tells the workers."""
