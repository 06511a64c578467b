"""Actions of users: each checks the role, commits, and only then notifies the workers."""
