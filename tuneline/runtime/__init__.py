"""How a stage runs: parameters, atomic outputs, process guards, hashes."""
