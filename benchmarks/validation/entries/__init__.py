"""Defenses that are no starter kits, in the manner of one: started as programs, with nothing but the contract."""
