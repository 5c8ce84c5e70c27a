"""One module for each catalog that ships with the node: types of data, and a function to publish each event."""
