"""How fast the parts are beside their literal forms, and how near a GPU comes to its limit: python -m benchmarks."""
