"""What touches a disk: files that appear whole, plain ones only, archives and records read strictly."""
