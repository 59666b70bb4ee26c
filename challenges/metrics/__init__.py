"""The measures of SCORING: pure numpy, no data frame, no Django, each usable on its own."""
