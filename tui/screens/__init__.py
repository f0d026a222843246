"""The screens of the full-screen front end, one area a file."""
