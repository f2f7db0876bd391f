"""What a user writes, validated: the study file and the price list."""
