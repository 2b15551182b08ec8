"""Who may log in, and how guessing passwords is slowed down."""
