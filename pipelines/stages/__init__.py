"""What each command does, once its arguments and its configuration are known to be good."""
