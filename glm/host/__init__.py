"""What a CPU computes in compiled loops: attention, and the products of a decoding step."""
