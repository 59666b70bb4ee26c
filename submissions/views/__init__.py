"""The pages of challenges and of what is entered in them."""
