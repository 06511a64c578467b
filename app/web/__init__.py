"""The browser's side of a page: addresses, identity, downloads, and the HTML that pages start from."""
