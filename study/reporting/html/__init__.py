"""Self-contained HTML pages: they need no network, and run no script but their own."""
