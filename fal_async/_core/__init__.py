"""Values and checks that every layer may use: secrets, argument checks, annotations."""
