"""What must hold: the rules, the judge, the ledger."""
