"""Other attentions in place of the full one."""
