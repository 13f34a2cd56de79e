"""The pure core: properties of what is a formula, stories of what is a decision; no broker."""
