"""What the templates show, made from the daemon's messages. Pure: the time is an argument."""
