"""The games: which inputs a container gets in each step, which outputs it owes, and how they are scored."""
