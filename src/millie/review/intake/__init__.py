"""The door: uploads, archives, a watched folder; what comes in is checked and renamed here."""
