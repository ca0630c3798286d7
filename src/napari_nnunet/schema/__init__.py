"""What files and forms say: frozen models that know neither torch nor paths."""
