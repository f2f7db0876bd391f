"""How the ranks of a group are placed, meet and exchange values."""
