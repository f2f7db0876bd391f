"""What the user wrote, validated, and the exact list of trials it means."""
