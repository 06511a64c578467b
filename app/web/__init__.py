"""URL state, navigation, identity, downloads, and the start page's HTML."""
