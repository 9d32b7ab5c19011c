"""Items: what is sold, under which SKU, at which price."""
