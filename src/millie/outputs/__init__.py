"""What people and other programs read: tables, pictures and reports, made from files on disk."""
