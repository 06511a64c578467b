"""`slimboard up`: the services of one machine."""
