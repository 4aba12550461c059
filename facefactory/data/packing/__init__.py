"""Sets in the making: from a recipe and what lies in folders, archives and tables, to shards."""
