"""Models of other projects as run directories of this one."""
