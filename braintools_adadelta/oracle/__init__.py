"""The judge: exact numbers, the exact step, and the ruler. Nothing here imports what it judges."""
