"""Where every millisecond of a policy goes: both rates, high level on and off, twice, against the policy's budget."""
