"""What this machine is and gives: cores, memory, libraries. The one place that asks the system."""
