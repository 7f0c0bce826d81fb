"""What is in a store: a summary in numbers and a contact sheet."""
