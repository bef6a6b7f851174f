"""Memory: the budget that requests lease from, pages and regions, and the machine's limit."""
